"""Products by oneDNN are those of MKL but for rounding, forward and backward; without it MKL multiplies."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.engines import products


@pytest.fixture(params=[True, False], ids=["oneDNN", "MKL"])
def asked(request, monkeypatch):
    if request.param:
        try:
            torch.ops.mkldnn._linear_pointwise(torch.ones(8, 4), torch.ones(4, 4), None, "none", [], "")
        except (AttributeError, RuntimeError):
            pytest.skip("this torch has no such operation of oneDNN")
    monkeypatch.setattr(products, "prefers_onednn", lambda: request.param)


@pytest.mark.parametrize("rows", [1, 7, 8, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_product_and_gradient(asked, rows, bias):
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(rows, 200, generator=draw), torch.randn(300, 200, generator=draw)
    shift = torch.randn(300, generator=draw) if bias else None
    assert torch.allclose(products.product(x, weight, shift), F.linear(x, weight, shift), atol=1e-4)
    assert torch.allclose(products.product(x @ weight.t(), weight.t()), x @ weight.t() @ weight, atol=1e-2)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    products.frozen_linear(ours, weight, shift).square().sum().backward()
    F.linear(theirs, weight, shift).square().sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-1)


def test_fp64_is_never_rounded(asked):
    x, weight = torch.randn(100, 200, dtype=torch.float64), torch.randn(300, 200, dtype=torch.float64)
    assert torch.equal(products.product(x, weight), F.linear(x, weight))


def test_a_system_that_does_not_say_its_maker_changes_nothing(monkeypatch):
    monkeypatch.setattr(products.Path, "read_text", lambda *_, **__: "processor : 0\n")
    assert products._is_intel()
