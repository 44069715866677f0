"""History of translated images that a discriminator is shown (Shrivastava et al. 2017; CycleGAN keeps 50)."""

from typing import Any

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Remembers `size` images and returns, for each one given, that one or an older one.

    The first `size` images are stored and returned. After that each image is, with probability one half, returned as it
    is, or else exchanged for a random stored one. The memory is a buffer, so that it is checkpointed with the method;
    which image goes where is decided on the device without waiting for it.
    """

    images: Tensor
    seen: Tensor

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.empty(0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> images of the same shape, some of them older. Gradients do not pass."""
        x = x.detach()
        if self.size == 0:
            return x
        if self.images.numel() == 0:
            self.images = x.new_zeros(self.size, *x.shape[1:])
        out = torch.empty_like(x)
        for i, image in enumerate(x):
            out[i] = self._exchange(image)
        return out

    def _exchange(self, image: Tensor) -> Tensor:
        filling = self.seen < self.size
        random = torch.randint(self.size, (), device=image.device)
        slot = torch.where(filling, self.seen, random).clamp(max=self.size - 1).view(1)
        stored = self.images.index_select(0, slot)[0]
        keep_given = filling | (torch.rand((), device=image.device) < 0.5)
        result = torch.where(keep_given, image, stored)
        remembered = torch.where(filling | ~keep_given, image, stored)
        self.images.index_copy_(0, slot, remembered.unsqueeze(0))
        self.seen += 1
        return result

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # The shape of the memory is known only once an image has been seen: take that of the checkpoint.
        saved = state_dict.get(prefix + "images")
        if saved is not None and saved.shape != self.images.shape:
            self.images = torch.empty_like(saved, device=self.images.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
