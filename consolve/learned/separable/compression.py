"""Replaces the convolutions of any network by compressed ones, before or after training (torch)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from consolve.learned.separable.form import SeparableConvolution, options_of
from consolve.learned.separable.layers import SEPARABLE, parameters_of, rank_for

INITIALISATIONS = ("random", "cp")


@dataclass(frozen=True)
class CompressedLayer:
    """One convolution of a network and what became of it.

    Attributes
    ----------
    name
        As in `torch.nn.Module.named_modules`.
    kind
        Class of the layer now.
    kernel
        (out, in, (k_z,) k_y, k_x).
    rank
        None for a layer that was left dense.
    parameters_before, parameters
        Numbers stored, kernel and bias.
    relative_error
        Frobenius error of the kernel with ``init="cp"``, otherwise None.
    """

    name: str
    kind: str
    kernel: tuple[int, ...]
    rank: int | None
    parameters_before: int
    parameters: int
    relative_error: float | None = None


@dataclass(frozen=True)
class CompressionSummary:
    """What `compress` did; printed as a table."""

    layers: tuple[CompressedLayer, ...]

    @property
    def parameters_before(self) -> int:
        return sum(layer.parameters_before for layer in self.layers)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def compression(self) -> float:
        """Convolution parameters before over after."""
        return self.parameters_before / self.parameters

    def __str__(self) -> str:
        rows = [("layer", "kernel", "rank", "dense", "now", "error")]
        for q in self.layers:
            rank = "dense" if q.rank is None else str(q.rank)
            error = "" if q.relative_error is None else f"{q.relative_error:.2e}"
            kernel = " x ".join(map(str, q.kernel))
            rows.append(
                (q.name or "(itself)", kernel, rank, str(q.parameters_before), str(q.parameters), error)
            )
        total = f"{self.compression:.3g} times fewer"
        rows.append(("all", "", "", str(self.parameters_before), str(self.parameters), total))
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join(
            "  ".join(
                c.ljust(w) if n < 2 else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths))
            ).rstrip()
            for row in rows
        )


def compress(
    network: nn.Module,
    *,
    compression: float | Mapping[str, float] | None = None,
    rank: int | Mapping[str, int] | None = None,
    init: str = "random",
    variance: str = "torch",
    exclude: Iterable[str] = (),
    keep_first: bool = False,
    keep_last: bool = False,
    method: str = "auto",
    seed: int | None = None,
    **options: Any,
) -> tuple[nn.Module, CompressionSummary]:
    """A copy of a network with compressed layers in place of its 2D and 3D convolutions.

    Left dense are convolutions with a single tap, whose kernel has no axis to separate; those that `exclude`,
    `keep_first` and `keep_last` name; and those that no name of a mapping matches.  A layer that occurs in
    several places is replaced by one layer.

    Parameters
    ----------
    network
        Any module; it may be a convolution itself.  It stays as it is.
    compression, rank
        One of the two.  `compression` gives each layer the largest rank with which it stores at most
        1/compression of its numbers (`consolve.learned.separable.layers.rank_for`, bias counted).
        A mapping gives values by name, where names may hold ``*`` and ``?``; the first that matches counts.
    init
        ``random``: new kernels and biases, to be trained (a priori compression).
        ``cp``: the canonical decompositions of the present kernels, with the present biases.
    variance
        Of random kernels: ``torch`` or ``he``, see `SeparableConvolution.reset_parameters`.
    exclude
        Names of layers to leave dense, may hold ``*`` and ``?``.
    keep_first, keep_last
        Leave the first or the last convolution dense, in the order of `torch.nn.Module.named_modules`.
    method
        How the layers compute, see `SeparableConvolution`.
    seed
        Of random kernels (default: torch's global generator goes on) and of the decompositions (default 0).
    options
        Of `consolve.learned.separable.canonical.canonical_decomposition` with ``cp``: `starts`, `sweeps`, ...

    Returns
    -------
    The new network and the summary, which lists every convolution.

    Raises
    ------
    ValueError
        Not one of `compression` and `rank`; a rank or compression that a layer does not allow; a grouped
        convolution, a subclass of torch's layers or a layer with hooks that is not excluded; a name that
        matches nothing; nothing to compress.
    """
    if (compression is None) == (rank is None):
        raise ValueError("expected one of compression= and rank=")
    if init not in INITIALISATIONS:
        raise ValueError(f"init must be one of {', '.join(INITIALISATIONS)}, got {init!r}")
    if options and init != "cp":
        raise TypeError(f"options of the decomposition need init='cp': {', '.join(options)}")
    network = copy.deepcopy(network)
    dense: dict[str, Any] = {n: m for n, m in network.named_modules() if isinstance(m, tuple(SEPARABLE))}
    chosen = _chosen(list(dense), exclude, keep_first, keep_last)
    settings = compression if rank is None else rank
    values = _values(list(dense), settings)
    replacements: dict[int, nn.Module] = {}
    rows = []
    devices = [torch.device("cuda", q) for q in range(torch.cuda.device_count())]
    with torch.random.fork_rng(devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        for name, layer in dense.items():
            kernel = _kernel(name, layer)
            made = layer
            if name in chosen and name in values and math.prod(kernel[2:]) > 1:
                _check_replaceable(name, layer)
                try:
                    terms = (
                        _rank(values[name], kernel, layer.bias is not None) if rank is None else values[name]
                    )
                    made = _compressed(layer, terms, init, variance, method, seed or 0, options)
                except ValueError as error:
                    raise ValueError(f"layer {name or '(itself)'}: {error}") from error
                replacements[id(layer)] = made
            rows.append(
                CompressedLayer(
                    name,
                    type(made).__name__,
                    kernel,
                    made.rank if made is not layer else None,
                    parameters_of(layer),
                    parameters_of(made),
                    made.relative_error if made is not layer else None,
                )
            )
    if not replacements:
        raise ValueError(
            f"{type(network).__name__} has no convolution to compress: {len(dense)} with 2 or 3 axes, all of "
            f"one tap or left out"
        )
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in replacements:
                parent._modules[name] = replacements[id(child)]
    return replacements.get(id(network), network), CompressionSummary(tuple(rows))


def _chosen(names: list[str], exclude: Iterable[str], keep_first: bool, keep_last: bool) -> set[str]:
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    _check_matched(patterns, names, "exclude")
    left_out = {n for n in names if any(fnmatchcase(n, p) for p in patterns)}
    left_out.update(names[:1] if keep_first else [], names[-1:] if keep_last else [])
    return set(names) - left_out


def _values(names: list[str], settings: Any) -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        return dict.fromkeys(names, settings)
    _check_matched(list(settings), names, "the mapping")
    found = {}
    for name in names:
        for pattern, value in settings.items():
            if fnmatchcase(name, pattern):
                found[name] = value
                break
    return found


def _check_matched(patterns: list[str], names: list[str], where: str) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{pattern!r} in {where} names no convolution; there are: {', '.join(names)}")


def _kernel(name: str, layer: Any) -> tuple[int, ...]:
    if isinstance(layer.weight, nn.parameter.UninitializedParameter):
        raise ValueError(
            f"layer {name} has no kernel yet: run the network once on an input, then compress it"
        )
    return (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)


def _check_replaceable(name: str, layer: Any) -> None:
    """Refuse what the compressed layer would silently do otherwise."""
    reason = None
    if layer.groups != 1:
        reason = f"has groups={layer.groups}, and a compressed layer has no groups"
    elif type(layer) not in SEPARABLE:
        reason = f"is a {type(layer).__name__}, whose own behaviour a compressed layer would not have"
    elif layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
        reason = "has hooks (weight normalisation, for example), which a compressed layer would not have"
    if reason:
        raise ValueError(f"layer {name or '(itself)'} {reason}: exclude it by exclude=[{name!r}]")


def _rank(compression: float, kernel: tuple[int, ...], bias: bool) -> int:
    return rank_for(compression, kernel[1], kernel[0], kernel[2:], bias)


def _compressed(
    layer: Any, rank: int, init: str, variance: str, method: str, seed: int, options: Mapping[str, Any]
) -> SeparableConvolution:
    separable = SEPARABLE[type(layer)]
    if init == "cp":
        made = separable.from_dense(layer, rank, method=method, seed=seed, **options)
    else:
        like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        made = separable(**options_of(layer), rank=rank, method=method, **like)
        made.reset_parameters(variance)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_((layer.bias if name == "bias" else layer.weight).requires_grad)
    return made.train(layer.training)
