"""Makes `torch-2.13.pt` beside it, with torch 2.13.0: a state_dict as trainers keep it, in every layout."""

import sys
from pathlib import Path

import torch


def counting(*shape: int, start: int = 0) -> torch.Tensor:
    """Multiples of 1/8 from `start` on: exact in every type but FP8."""
    size = torch.Size(shape).numel()
    return (torch.arange(start, start + size, dtype=torch.float64) / 8).reshape(shape)


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = torch.nn.Embedding(6, 4)
        self.head = torch.nn.Linear(4, 6)
        self.head.weight = self.emb.weight


def main(path: Path) -> None:
    module = Tied()
    optimizer = torch.optim.AdamW(module.parameters())
    module.head(module.emb(torch.arange(6))).sum().backward()
    optimizer.step()
    with torch.no_grad():
        module.emb.weight.copy_(counting(6, 4))
    base = counting(10, 6).float()
    views = {
        "base": base,
        "turned": base.T,
        "rows": base[2:7],
        "columns": base[:, 1:4],
        "apart": base[1::3, ::2],
    }
    views |= {"stacked": counting(4, 3, 5).float().permute(1, 2, 0), "spread": counting(1, 5).expand(7, 5)}
    kinds = ("float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz")
    kinds += ("float8_e5m2fnuz", "int64", "uint16", "bool", "complex64")
    types = {kind: counting(3, 4, start=-6).to(getattr(torch, kind)) for kind in kinds}
    saved = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "step": 1400}
    saved |= {"views": views, "types": types, "parameter": torch.nn.Parameter(counting(2, 3).float())}
    torch.save(saved | {"lr": 0.001, "list": [counting(2, 2).half(), None, "text"]}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("torch-2.13.pt"))
