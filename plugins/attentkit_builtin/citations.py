"""BibTeX entries of the methods. A field that could not be checked is left out."""

ATTENT = r"""@inproceedings{li2021attent,
  author    = {Li, Chen and Luo, Xin and Chen, Wei and He, Yulin and Wu, Mingfei and Tan, Yusong},
  title     = {{AttENT}: Domain-Adaptive Medical Image Segmentation via Attention-Aware Translation and Adversarial
               Entropy Minimization},
  booktitle = {IEEE International Conference on Bioinformatics and Biomedicine (BIBM)},
  pages     = {952--959},
  year      = {2021},
  doi       = {10.1109/BIBM52615.2021.9669620}
}"""

ADVENT = r"""@inproceedings{vu2019advent,
  author    = {Vu, Tuan-Hung and Jain, Himalaya and Bucher, Maxime and Cord, Matthieu and P{\'e}rez, Patrick},
  title     = {{ADVENT}: Adversarial Entropy Minimization for Domain Adaptation in Semantic Segmentation},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {2517--2526},
  year      = {2019},
  doi       = {10.1109/CVPR.2019.00262}
}"""

ADAPTSEGNET = r"""@inproceedings{tsai2018learning,
  author    = {Tsai, Yi-Hsuan and Hung, Wei-Chih and Schulter, Samuel and Sohn, Kihyuk and Yang, Ming-Hsuan and
               Chandraker, Manmohan},
  title     = {Learning to Adapt Structured Output Space for Semantic Segmentation},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {7472--7481},
  year      = {2018}
}"""

CYCLEGAN = r"""@inproceedings{zhu2017unpaired,
  author    = {Zhu, Jun-Yan and Park, Taesung and Isola, Phillip and Efros, Alexei A.},
  title     = {Unpaired Image-to-Image Translation Using Cycle-Consistent Adversarial Networks},
  booktitle = {IEEE International Conference on Computer Vision (ICCV)},
  year      = {2017},
  doi       = {10.1109/ICCV.2017.244}
}"""

CYCADA = r"""@inproceedings{hoffman2018cycada,
  author    = {Hoffman, Judy and Tzeng, Eric and Park, Taesung and Zhu, Jun-Yan and Isola, Phillip and Saenko, Kate and
               Efros, Alexei A. and Darrell, Trevor},
  title     = {{CyCADA}: Cycle-Consistent Adversarial Domain Adaptation},
  booktitle = {International Conference on Machine Learning (ICML)},
  pages     = {1989--1998},
  year      = {2018}
}"""

SYNSEGNET = r"""@article{huo2019synsegnet,
  author    = {Huo, Yuankai and Xu, Zhoubing and Moon, Hyeonsoo and Bao, Shunxing and Assad, Albert and
               Moyo, Tamara K. and Savona, Michael R. and Abramson, Richard G. and Landman, Bennett A.},
  title     = {{SynSeg-Net}: Synthetic Segmentation Without Target Modality Ground Truth},
  journal   = {IEEE Transactions on Medical Imaging},
  volume    = {38},
  number    = {4},
  pages     = {1016--1025},
  year      = {2019},
  doi       = {10.1109/TMI.2018.2876633}
}"""

SIFA_V1 = r"""@inproceedings{chen2019synergistic,
  author    = {Chen, Cheng and Dou, Qi and Chen, Hao and Qin, Jing and Heng, Pheng-Ann},
  title     = {Synergistic Image and Feature Adaptation: Towards Cross-Modality Domain Adaptation for Medical Image
               Segmentation},
  booktitle = {AAAI Conference on Artificial Intelligence},
  volume    = {33},
  number    = {01},
  pages     = {865--872},
  year      = {2019}
}"""

SIFA_V2 = r"""@article{chen2020unsupervised,
  author    = {Chen, Cheng and Dou, Qi and Chen, Hao and Qin, Jing and Heng, Pheng Ann},
  title     = {Unsupervised Bidirectional Cross-Modality Adaptation via Deeply Synergistic Image and Feature Alignment for
               Medical Image Segmentation},
  journal   = {IEEE Transactions on Medical Imaging},
  volume    = {39},
  number    = {7},
  pages     = {2494--2505},
  year      = {2020},
  doi       = {10.1109/TMI.2020.2972701}
}"""


def cite(*entries: str) -> str:
    """Several entries as one text."""
    return "\n\n".join(entries)
