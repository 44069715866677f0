"""A real Ray cluster of several nodes on this machine, in a process of its own that is told what to do in lines.

python tests/support/ray_cluster.py 2        # prints the address; "kill" takes a node away, "add 1" adds one, "end" ends it
"""

import subprocess
import sys


class RayNodes:
    """A head node that takes no jobs, and nodes of one core and one GPU each that do; the GPUs are only claimed."""

    def __init__(self, nodes: int = 2) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(nodes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        self.address = self._answer()

    def kill_node(self) -> None:
        """The oldest of the nodes, with all that runs on it, as if its power were cut."""
        self._tell("kill")

    def add_node(self, size: int = 1) -> None:
        """A new one, of so many cores and GPUs."""
        self._tell(f"add {size}")

    def free(self) -> str:
        """Cores that no job holds, on all nodes."""
        return self._tell("free")

    def stop(self) -> None:
        """End all of it."""
        if self._process.poll() is None:
            self._tell("end")
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _tell(self, word: str) -> str:
        assert self._process.stdin
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("> "):
                return line[2:].strip()
        raise RuntimeError("the cluster of Ray did not start here")


def _serve(count: int) -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(count)]
    cluster.wait_for_nodes()
    cluster.connect()
    print(f"> {cluster.address}", flush=True)
    for line in sys.stdin:
        word, _, size = line.strip().partition(" ")
        if word == "kill":
            cluster.remove_node(nodes.pop(0), allow_graceful=False)
        elif word == "add":
            nodes.append(cluster.add_node(num_cpus=int(size), num_gpus=int(size)))
        elif word == "free":
            word = f"{ray.available_resources().get('CPU', 0):g}"
        elif word == "end":
            ray.shutdown()
            cluster.shutdown()
        print(f"> {word}", flush=True)
        if word == "end":
            return


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
