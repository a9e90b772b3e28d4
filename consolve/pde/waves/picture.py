"""Pictures of waves: a field in two colours over its medium in grey, strips of snapshots, animations.

Blue is negative, orange positive (told apart by the colour-blind too); where u = 0 the medium shows: light
grey is fast, darker grey slow, dark blocks are fixed cells.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from consolve.base.files import whole_file

Paths = str | os.PathLike[str]

_WAVE = np.array(
    [
        (-1.00, 0.04, 0.14, 0.36),
        (-0.65, 0.09, 0.38, 0.68),
        (-0.35, 0.38, 0.66, 0.86),
        (-0.12, 0.78, 0.89, 0.95),
        (0.00, 1.00, 1.00, 1.00),
        (0.12, 0.98, 0.85, 0.72),
        (0.35, 0.93, 0.55, 0.27),
        (0.65, 0.74, 0.25, 0.08),
        (1.00, 0.38, 0.07, 0.03),
    ]
)
_SLOW, _FAST = 0.79, 0.98
_BLOCK = np.array((0.185, 0.205, 0.25))
_INK, _MUTED, _PAPER = "#1f2430", "#6b7280", "#ffffff"
_SURROGATE = "#c8501a"
_FACTORS = (1, 2, 5, 10, 20, 50, 100)
"""By which errors may be magnified."""


def amplitude(u: ArrayLike) -> float:
    """What is drawn in the deepest colour: 99.7 percent of all |u| that are not tiny are below; positive."""
    size = np.abs(np.asarray(u, np.float64))
    size = size[np.isfinite(size)]
    largest = float(size.max(initial=0.0))
    if largest == 0:
        return 1.0
    return float(np.quantile(size[size > 0.02 * largest], 0.997))


def wave_colours(shares: ArrayLike) -> NDArray[np.float64]:
    """Colours (..., 3) in [0, 1] of u / amplitude; beyond -1 and 1 the ends, NaN as 0."""
    s = np.clip(np.nan_to_num(np.asarray(shares, np.float64), posinf=1, neginf=-1), -1, 1)
    return np.stack([np.interp(s, _WAVE[:, 0], _WAVE[:, c]) for c in (1, 2, 3)], axis=-1)


def render_wave(
    u: ArrayLike,
    speed: ArrayLike,
    fixed: ArrayLike | None = None,
    pixels: int = 480,
    scale: float | None = None,
    speed_range: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """A picture of one snapshot of the unit square.

    Parameters
    ----------
    u, speed
        (ny, nx) at vertices, row 0 at y = 0.
    fixed
        (ny, nx): vertices where u = 0; cells of which all four are, are drawn as blocks.
    pixels
        Side of the picture.
    scale
        |u| of the deepest colours; default: :func:`amplitude`.
    speed_range
        Speeds of the darkest and the lightest grey; default: those of the medium.

    Returns
    -------
    (pixels, pixels, 3), row 0 on top.

    Raises
    ------
    ValueError
        If shapes differ, or the picture is too small.
    """
    return _Painter(speed, fixed, pixels, speed_range).paint(u, amplitude(u) if scale is None else scale)


class _Painter:
    """What of the pictures of one medium is the same in all."""

    def __init__(
        self,
        speed: ArrayLike,
        fixed: ArrayLike | None,
        pixels: int,
        speed_range: tuple[float, float] | None = None,
    ) -> None:
        c = np.asarray(speed, np.float64)
        if c.ndim != 2 or min(c.shape) < 2:
            raise ValueError(f"speed: expected (ny, nx) of at least 2 vertices a side, got {c.shape}")
        if pixels < 16:
            raise ValueError(f"a picture is at least 16 pixels high, got {pixels}")
        mask = np.zeros(c.shape, bool) if fixed is None else np.asarray(fixed) != 0
        if mask.shape != c.shape:
            raise ValueError(f"fixed: expected the shape of the speed {c.shape}, got {mask.shape}")
        self.shape, self.pixels = c.shape, pixels
        centre = (np.arange(pixels) + 0.5) / pixels
        self._at = np.meshgrid((1 - centre) * (c.shape[0] - 1), centre * (c.shape[1] - 1), indexing="ij")
        low, high = speed_range or (float(c.min()), float(c.max()))
        level = (np.clip(c, low, high) - low) / (high - low) if high > low else np.full(c.shape, 0.8)
        grey = _SLOW + (_FAST - _SLOW) * ndimage.map_coordinates(level, self._at, order=1)
        self._paper = grey[..., None] * np.array((0.992, 0.996, 1.0))
        self._cover = self._block_cover(mask)[..., None]

    def _block_cover(self, fixed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Part of each pixel that fixed cells cover, from 4 x 4 points in it."""
        cells = fixed[:-1, :-1] & fixed[1:, :-1] & fixed[:-1, 1:] & fixed[1:, 1:]
        places = (np.arange(4 * self.pixels) + 0.5) / (4 * self.pixels)
        row, column = (((p * n).astype(int)) for p, n in zip((1 - places, places), cells.shape))
        fine = cells[np.ix_(row, column)].reshape(self.pixels, 4, self.pixels, 4)
        return fine.mean((1, 3))

    def paint(self, u: ArrayLike, scale: float) -> NDArray[np.uint8]:
        field = np.asarray(u, np.float64)
        if field.shape != self.shape:
            raise ValueError(f"u: expected the shape of the speed {self.shape}, got {field.shape}")
        if not scale > 0:
            raise ValueError(f"the scale of a picture must be positive, got {scale}")
        fine = ndimage.map_coordinates(np.nan_to_num(field), self._at, order=3, mode="nearest")
        colour = self._paper * wave_colours(fine / scale)
        colour += self._cover * (_BLOCK - colour)
        return (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)


def save_wave_strip(
    path: Paths,
    fields: Mapping[str, ArrayLike],
    times: ArrayLike,
    speed: ArrayLike,
    fixed: ArrayLike | None = None,
    columns: int = 5,
    errors: ArrayLike | None = None,
    title: str = "",
    source: tuple[float, float] | None = None,
) -> None:
    """A figure with one row for each field and one column for each of several times; whole or not at all.

    With two fields, the truth first, a row of the magnified difference follows, and with ``errors`` a curve.

    Parameters
    ----------
    path
        Of a PNG, or what else its suffix says.
    fields
        One or two of (snapshots, ny, nx), by name.
    times
        (snapshots,).
    speed, fixed
        As of :func:`render_wave`.
    columns
        How many times are shown, evenly spaced, the first and the last among them.
    errors
        (snapshots,) VRMSE of the second field.
    title
        Above all.
    source
        (x, y) to be marked in the first column.

    Raises
    ------
    ValueError
        If shapes do not fit, or the number of fields is not 1 or 2.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    arrays, when = _checked(fields, times)
    chosen = np.unique(np.linspace(0, len(when) - 1, columns).round().astype(int))
    names, stacks = list(arrays), list(arrays.values())
    scale = amplitude(stacks[0][chosen])
    painter = _Painter(speed, fixed, 360)
    rows = [(name, stack[chosen], scale) for name, stack in zip(names, stacks)]
    if len(stacks) == 2:
        difference = (stacks[1] - stacks[0])[chosen]
        factor = _magnification(difference, scale)
        rows.append(("error" if factor == 1 else f"error × {factor}", difference, scale / factor))
    curve = errors is not None and len(when) > 1
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": _INK}):
        heights = [1.0] * len(rows) + ([0.62] if curve else [])
        size = (1.9 * len(chosen) + 1.3, 1.9 * sum(heights) + 0.75 + 0.45 * curve)
        figure = plt.figure(figsize=size, facecolor=_PAPER, layout="constrained")
        grid = figure.add_gridspec(len(heights), len(chosen) + 1, width_ratios=[1] * len(chosen) + [0.07],
                                   height_ratios=heights)  # fmt: skip
        for j, (name, snapshots, row_scale) in enumerate(rows):
            for i, snapshot in enumerate(snapshots):
                axes = figure.add_subplot(grid[j, i])
                axes.imshow(painter.paint(snapshot, row_scale), extent=(0, 1, 0, 1), interpolation="lanczos")
                _frame(axes)
                if i == 0:
                    axes.set_ylabel(name, color=_INK, fontsize=11, fontweight="bold", labelpad=7)
                if j == 0:
                    axes.set_title(f"t = {when[chosen[i]]:.2f}", color=_INK, fontsize=11)
                if i == j == 0 and source is not None:
                    axes.plot(*source, marker="+", color=_INK, ms=9, mew=1.4)
                if errors is not None and j == 2:
                    value = np.asarray(errors, np.float64)[chosen[i]]
                    axes.set_xlabel(f"VRMSE {value:.3f}", color=_MUTED, fontsize=9.5)
        _colour_bar(figure.add_subplot(grid[: len(stacks), -1]), scale)
        if curve:
            _error_curve(figure.add_subplot(grid[-1, : len(chosen)]), when, errors, chosen)
        if title:
            figure.suptitle(title, x=0.012, ha="left", fontsize=12.5, fontweight="bold")
        with whole_file(path) as part:
            figure.savefig(part, dpi=140)
        plt.close(figure)


def _checked(fields: Mapping[str, ArrayLike], times: ArrayLike) -> tuple[dict[str, NDArray], NDArray]:
    when = np.asarray(times, np.float64)
    arrays = {name: np.asarray(field) for name, field in fields.items()}
    shapes = {a.shape for a in arrays.values()}
    if len(arrays) not in (1, 2) or len(shapes) != 1 or when.ndim != 1 or not when.size:
        raise ValueError(f"expected one or two fields of one shape, and their times, got {shapes}")
    shape = shapes.pop()
    if len(shape) != 3 or shape[0] != when.size:
        raise ValueError(f"expected fields (snapshots, ny, nx) at {when.size} times, got {shape}")
    return arrays, when


def _magnification(difference: NDArray, scale: float) -> int:
    """The largest of the usual factors that leaves nearly all of the difference within the scale."""
    size = amplitude(difference) if difference.any() else scale
    return max(f for f in _FACTORS if f == 1 or f * size <= 1.1 * scale)


def _frame(axes: Any) -> None:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=_MUTED, linewidth=0.6)


def _colour_bar(axes: Any, scale: float) -> None:
    shades = wave_colours(np.linspace(-1, 1, 256))[:, None]
    axes.imshow(shades, extent=(0, 1, -scale, scale), origin="lower", aspect="auto")
    axes.set(xticks=[])
    axes.yaxis.tick_right()
    axes.tick_params(labelsize=8.5, labelcolor=_INK, color=_MUTED, length=2.5)
    axes.set_title("u", color=_INK, fontsize=10, style="italic")
    for spine in axes.spines.values():
        spine.set(color=_MUTED, linewidth=0.6)


def _error_curve(axes: Any, times: NDArray, errors: ArrayLike | None, chosen: NDArray[np.int_]) -> None:
    values = np.asarray(errors, np.float64)
    axes.fill_between(times, values, color=_SURROGATE, alpha=0.10, linewidth=0)
    axes.plot(times, values, color=_SURROGATE, linewidth=1.8)
    axes.plot(times[chosen], values[chosen], "o", color=_SURROGATE, ms=5, mec=_PAPER, mew=1.0)
    finite = values[np.isfinite(values)]
    axes.set_ylim(0, 1.15 * max(float(finite.max(initial=0.0)), 1e-6))
    axes.set_xlim(times[0], times[-1])
    axes.margins(x=0)
    axes.set_ylabel("VRMSE", color=_INK, fontsize=10)
    axes.set_xlabel("time", color=_INK, fontsize=10)
    axes.tick_params(labelsize=8.5, labelcolor=_INK, color=_MUTED, length=2.5)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=_MUTED, linewidth=0.6)


def save_wave_animation(
    path: Paths,
    fields: Mapping[str, ArrayLike],
    times: ArrayLike,
    speed: ArrayLike,
    fixed: ArrayLike | None = None,
    errors: ArrayLike | None = None,
    pixels: int = 320,
    seconds: float = 0.08,
) -> None:
    """An endless GIF of one field, or of two side by side, on one scale; whole or not at all.

    Parameters
    ----------
    fields, times, speed, fixed, errors
        As of :func:`save_wave_strip`.
    pixels
        Side of the picture of a field.
    seconds
        Each snapshot is shown for; the last for ten times as long.
    """
    arrays, when = _checked(fields, times)
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"{path}: an animation is a GIF; end its name in .gif")
    scale = amplitude(next(iter(arrays.values())))
    painter = _Painter(speed, fixed, pixels)
    values = None if errors is None else np.asarray(errors, np.float64)
    frames = []
    for k, t in enumerate(when):
        pictures = [painter.paint(stack[k], scale) for stack in arrays.values()]
        words = f"t = {t:.2f}" + ("" if values is None else f"    VRMSE {values[k]:.3f}")
        frames.append(_sheet(list(arrays), pictures, words, (k + 1) / len(when)))
    # One palette for all, from frames of the beginning, the middle and the end: colours do not flicker.
    sample = np.concatenate([np.asarray(frames[k]) for k in (0, len(frames) // 2, len(frames) - 1)])
    palette = _image(sample).quantize(256)
    indexed = [frame.quantize(palette=palette, dither=0) for frame in frames]
    duration = [round(1000 * seconds)] * (len(frames) - 1) + [round(10_000 * seconds)]
    with whole_file(path) as part:
        indexed[0].save(part, save_all=True, append_images=indexed[1:], duration=duration, loop=0,
                        optimize=False)  # fmt: skip


def _image(array: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(array)


def _font(size: int, bold: bool = False) -> Any:
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _sheet(names: Sequence[str], pictures: Sequence[NDArray[np.uint8]], words: str, share: float) -> Any:
    """One frame: names above, pictures, a line of words and the bar of time below."""
    from PIL import Image, ImageDraw

    side, margin = pictures[0].shape[0], 14
    text = max(10, side // 22)
    top = margin + round(1.7 * text)
    width = len(pictures) * (side + margin) + margin
    sheet = Image.new("RGB", (width, top + side + round(2.3 * text) + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (name, picture) in enumerate(zip(names, pictures)):
        left = margin + place * (side + margin)
        sheet.paste(_image(picture), (left, top))
        draw.rectangle((left - 1, top - 1, left + side, top + side), outline=_MUTED)
        draw.text((left, margin - 2), name, fill=_INK, font=_font(text, bold=True))
    below = top + side + round(0.55 * text)
    draw.text((margin, below), words, fill=_INK, font=_font(text))
    start, bar = width // 2, below + round(0.65 * text)
    draw.line((start, bar, width - margin - 1, bar), fill="#e5e7eb", width=3)
    draw.line(
        (start, bar, start + round(share * (width - margin - 1 - start)), bar), fill=_SURROGATE, width=3
    )
    return sheet
