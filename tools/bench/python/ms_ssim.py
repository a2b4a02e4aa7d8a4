"""The work `ms_ssim`: MS-SSIM of 64 pairs of images of 3x227x227 and its gradient with regard to one of
each pair, by the package pytorch-msssim.

Usage: ms_ssim.py FOLDER
"""

import torch
from pytorch_msssim import ms_ssim

import worker

SHAPE = (64, 3, 227, 227)


def main():
    torch.manual_seed(1)
    a = torch.rand(SHAPE) * 255
    b = (a + torch.randn(SHAPE) * 40).clamp(0, 255).requires_grad_()

    def unit():
        value = ms_ssim(b, a, data_range=255)
        (gradient,) = torch.autograd.grad(value, [b])
        return value.item(), gradient

    value, gradient = unit()
    facts = {"precision": "fp32", "threads": torch.get_num_threads()}
    facts["checks"] = [{"similarity": value, "gradient": gradient.norm().item()}]
    worker.serve(facts, unit)


if __name__ == "__main__":
    main()
