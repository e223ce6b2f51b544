"""The only style: how every figure of the project looks, and its bytes.

Conventions.  Ten colours that colour-blind readers can tell apart (Petroff, arXiv:2107.02270),
cividis for densities, one diverging map with white at zero.  Figures are 8 inches wide and shown at
800 pixels, so 10 points are 14 pixels there.  No pyplot, hence no global figure list, and the
user's own matplotlib settings do not leak in: the same arrays give the same PNG and SVG bytes on
the same library versions.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from PIL.Image import Image

__all__ = [
    "COLORS",
    "DENSITY",
    "DIVERGING",
    "background",
    "density",
    "figure",
    "frame",
    "gif",
    "histogram_beside_density",
    "save",
    "style",
]

# petroff10; spelt out, since matplotlib has it by name from 3.10 on only.
COLORS = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"]
COLORS += ["#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"]
DENSITY = "cividis"
DIVERGING = "RdBu_r"

_WIDTH = 8.0  # inches
_HEAVY = 2000  # points from which an artist is an image inside the SVG

_RC: dict[str, Any] = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.figsize": (_WIDTH, 4.5),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.labelsize": 10.0,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
    "image.cmap": DENSITY,
    "image.origin": "lower",
    "svg.hashsalt": "diffscience",
    "svg.fonttype": "path",
    "path.simplify": True,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw and save inside this context; the settings from before come back after it.

    >>> with style():
    ...     figure()[0].get_size_inches().tolist()
    [8.0, 4.5]
    """
    import matplotlib
    from cycler import cycler  # matplotlib's own dependency

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(_RC)
        settings["axes.prop_cycle"] = cycler(color=COLORS)
        yield


def figure(
    rows: int = 1, columns: int = 1, *, height: float = 4.5, share: bool = False
) -> tuple[Figure, np.ndarray]:
    """(figure, axes of shape (rows, columns)), 8 inches wide and `height` inches high.

    share : all panels have one x-axis and one y-axis.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(_WIDTH, height))
    return drawn, drawn.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)


def legend_below(fig: Figure, *axes: Axes, columns: int = 4) -> None:
    """One legend below all panels, with every name of the given axes once."""
    named: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    fig.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns)


# ------------------------------------------------------------------ bytes


def _points(artist: Any) -> int:
    """How many points an artist draws."""
    from matplotlib import collections, lines

    if isinstance(artist, lines.Line2D):
        return int(np.size(np.asarray(artist.get_xdata(orig=False))))
    if isinstance(artist, collections.QuadMesh):
        return int(np.size(np.asarray(artist.get_array())))
    if isinstance(artist, collections.PathCollection):
        return len(np.asarray(artist.get_offsets()))
    if isinstance(artist, collections.Collection):
        return sum(len(np.asarray(path.vertices)) for path in artist.get_paths())
    return 0


def save(fig: Figure, metadata: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """(PNG bytes, SVG bytes) of a figure, with `metadata` (JSON data) inside both.

    In the PNG they are the text chunk "Description", in the SVG the Dublin Core description.
    Neither holds a date.  Artists of many points become images inside the SVG, which keeps it
    small.  The same figure gives the same bytes.
    """
    import matplotlib

    for artist in fig.findobj(lambda artist: bool(_points(artist) > _HEAVY)):
        artist.set_rasterized(True)
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=True)
    about = {"Description": text, "Date": None, "Creator": None}
    png, svg = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": _RC["svg.hashsalt"]}):
        dpi = _RC["savefig.dpi"]
        fig.savefig(png, format="png", dpi=dpi, metadata={"Description": text, "Software": None})
        fig.savefig(svg, format="svg", dpi=dpi, metadata=about)
    return png.getvalue(), svg.getvalue()


def frame(fig: Figure, dpi: float = 100.0) -> Image:
    """A figure as an RGB image, one frame of an animation (800 pixels wide by default)."""
    from PIL import Image

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def gif(frames: Sequence[Image], ms: float | Sequence[float]) -> bytes:
    """The bytes of an animation that loops for ever.

    All frames share one palette of 255 colours chosen from up to 16 of them, without dithering:
    what does not move keeps its pixels, and so costs nothing.

    Parameters
    ----------
    frames : images of one size.
    ms : milliseconds, for all frames or for each; GIF rounds to hundredths of a second.
    """
    from PIL import Image

    if not frames or any(image.size != frames[0].size for image in frames):
        raise ArgumentError("frames", "be one or more images of one size", len(frames))
    times = [float(t) for t in np.broadcast_to(ms, len(frames))]
    if not all(t >= 10 for t in times):
        raise ArgumentError("ms", "be 10 milliseconds or more", ms)
    pick = np.unique(np.linspace(0, len(frames) - 1, min(16, len(frames))).round().astype(int))
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(pick)))
    for row, i in enumerate(pick):
        sheet.paste(frames[i].convert("RGB"), (0, row * height))
    palette = sheet.quantize(255, method=Image.Quantize.MEDIANCUT)
    flat = [
        image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE) for image in frames
    ]
    buffer = io.BytesIO()
    flat[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=flat[1:],
        duration=[round(t) for t in times],
        loop=0,
        optimize=False,  # would give each frame a palette of its own
    )
    return buffer.getvalue()


# ------------------------------------------------------------------ exact densities


def _log_prob(law: Any, points: np.ndarray) -> np.ndarray:
    """log_prob of many points (N, D), a few thousand at a time: a mixture may have 1000 parts."""
    parts = [points[i : i + 4096] for i in range(0, len(points), 4096)]
    return np.concatenate([np.asarray(law.log_prob(part)) for part in parts])


def background(
    ax: Axes,
    log_density: np.ndarray,
    box: tuple[float, float, float, float],
    *,
    depth: float = 12.0,
) -> AxesImage:
    """A log-density that was computed before, as the background of a panel.

    Parameters
    ----------
    log_density : (n, m) values at the centres of the pixels, rows from bottom to top.
    box : (left, right, bottom, top).
    depth : natural-log units below the maximum at which the colour scale ends.

    Returns the image.  Its values are log_density - maximum on the scale from -depth to 0, so that
    one colour bar serves many panels.
    """
    left, right, bottom, top = box
    if not (left < right and bottom < top):
        raise ArgumentError("box", "be (left, right, bottom, top) with left < right", box)
    values = np.asarray(log_density, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values.max(initial=-np.inf)):
        raise ArgumentError("log_density", "be (n, m) with a finite maximum", values.shape)
    image = ax.imshow(
        np.clip(values - values.max(), -depth, 0.0),
        extent=box,
        origin="lower",
        cmap=DENSITY,
        vmin=-depth,
        vmax=0.0,
        aspect="auto",
        interpolation="nearest",
        zorder=0,
    )
    ax.grid(False)
    return image


def _pixels(box: tuple[float, float, float, float], n: int) -> np.ndarray:
    """The centres of n x n pixels, where an image shows its values: (n, n, 2), x along columns."""
    left, right, bottom, top = box
    steps = (np.arange(n) + 0.5) / n
    return np.stack(np.meshgrid(left + (right - left) * steps, bottom + (top - bottom) * steps), -1)


def density(
    ax: Axes,
    law: Any,
    box: tuple[float, float, float, float],
    *,
    n: int = 240,
    depth: float = 12.0,
) -> AxesImage:
    """The exact log-density of a 2-D target as the background of a panel (see `background`).

    law : a Target with dim 2; n : points along each side.
    """
    values = _log_prob(law, _pixels(box, n).reshape(-1, 2)).reshape(n, n)
    return background(ax, values, box, depth=depth)


def histogram_beside_density(
    ax: Axes,
    samples: np.ndarray,
    law: Any,
    *,
    bins: int = 80,
    limits: tuple[float, float] | None = None,
    color: str = COLORS[0],
    label: str = "samples",
) -> None:
    """A histogram of 1-D samples with the exact density of `law` as a line over it.

    samples : (n,) or (n, 1); limits : (left, right), by default those of the samples, widened.
    Samples outside the limits still count in the normalisation, so that none is hidden by it.
    """
    flat = np.asarray(samples, dtype=np.float64).reshape(-1)
    if flat.size == 0 or not np.isfinite(flat).all():
        raise ArgumentError("samples", "be finite numbers, one or more", samples)
    margin = 0.05 * float(np.ptp(flat)) or 1.0
    left, right = limits or (float(flat.min()) - margin, float(flat.max()) + margin)
    edges = np.linspace(left, right, bins + 1)
    height = np.histogram(flat, edges)[0] / (flat.size * np.diff(edges))
    ax.stairs(height, edges, fill=True, color=color, alpha=0.45, label=label)
    xs = np.linspace(left, right, 801)
    exact = np.exp(_log_prob(law, xs[:, None]))
    ax.plot(xs, exact, color="black", linewidth=1.2, label="exact density")
    ax.set_xlim(left, right)
    ax.set_ylim(bottom=0.0)
