"""Changes that a recogniser should not mind, for whole batches of aligned faces.

Make-up and occlusion are painted on the ArcFace crop, where lips, eyes and cheeks are known; one resampling then
moves the face a little and carries it to the crop of the network to be trained; light, blur, noise and compression
follow, as they would in a photo. Each change befalls a random subset of the images. Our design.

Blur, coarse resampling and smooth noise are products with one matrix along the rows and one along the columns
(`_along_both`), which serve a different strength for every image at the speed of a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112, CropTemplate
from bauta.faces.crops import alignments
from bauta.faces.warp import compose, invert
from bauta.settings import Range, Settings, Share

SIDE = 112
Pair = tuple[float, float]

# Places in the ArcFace crop (pixels), as (x, y, half width, half height) of smooth spots.
LIPS = ((56.1, 92.3, 15.0, 6.0),)
EYES = ((38.3, 50.0, 11.0, 7.0), (73.5, 50.0, 11.0, 7.0))
CHEEKS = ((31.0, 74.0, 11.0, 10.0), (81.0, 74.0, 11.0, 10.0))
# Centre and half sizes of what covers both eyes, and of what covers nose and mouth.
GLASSES = (56.0, 51.6, 36.0, 10.0)
MASK = (56.0, 93.0, 34.0, 24.0)


@dataclass(frozen=True)
class Augmentation(Settings):
    """How often each change befalls an image, and how strong it is.

    Attributes:
        flip: Probability of a mirror image.
        move: Probability of a similarity about the crop's centre by `scale`, `rotation` and `shift`.
        makeup: Probability of smooth colour shifts on lips, eyes and cheeks.
        occlusion: Probability of a flat or noisy patch: rectangle, ellipse, glasses or mask.
        colour: Probability of changes of `brightness`, `contrast`, `saturation` and `gamma`.
        coarse: Probability of being sampled down to `coarse_side` and up again.
        blur: Probability of a Gaussian blur of `blur_sigma`.
        noise: Probability of white Gaussian noise of `noise_rms`.
        smooth_noise: Probability of low-pass noise of `smooth_rms`, as strong as an identity mask.
        jpeg: Probability of a JPEG round trip at `jpeg_quality`, with full or halved chroma.
        scale: Lowest and highest factor of the face's size.
        rotation: Greatest angle to either side, degrees.
        shift: Greatest shift along either axis, pixels of the ArcFace crop.
        makeup_strength: Greatest shift of a colour, in [0, 1].
        occlusion_size: Lowest and highest side of a rectangle or ellipse, shares of the crop's.
        brightness: Greatest change that is added.
        contrast: Lowest and highest factor about the image's mean.
        saturation: Lowest and highest factor about grey.
        gamma: Lowest and highest exponent.
        coarse_side: Lowest and highest number of pixels along the crop's side, for a crop of 112; whole numbers.
        blur_sigma: Lowest and highest, pixels.
        noise_rms: Lowest and highest root mean square, 1/255.
        smooth_rms: The same.
        smooth_sigma: Lowest and highest sigma of the low-pass filter, pixels.
        jpeg_quality: Lowest and highest, whole numbers of libjpeg's scale.

    Raises:
        UsageError: when a value is outside its limits.
    """

    title: ClassVar[str] = "augmentation"
    flip: Share = 0.5
    move: Share = 0.9
    makeup: Share = 0.2
    occlusion: Share = 0.15
    colour: Share = 0.5
    coarse: Share = 0.2
    blur: Share = 0.2
    noise: Share = 0.2
    smooth_noise: Share = 0.25
    jpeg: Share = 0.3
    scale: Annotated[Pair, Range(at=0.5, to=2)] = (0.92, 1.08)
    rotation: Annotated[float, Range(at=0, to=180)] = 6.0
    shift: Annotated[float, Range(at=0, to=56)] = 4.0
    makeup_strength: Share = 0.3
    occlusion_size: Annotated[Pair, Range(at=0, to=1)] = (0.15, 0.45)
    brightness: Share = 0.15
    contrast: Annotated[Pair, Range(at=0, to=4)] = (0.7, 1.3)
    saturation: Annotated[Pair, Range(at=0, to=4)] = (0.4, 1.5)
    gamma: Annotated[Pair, Range(at=0.1, to=10)] = (0.7, 1.4)
    coarse_side: Annotated[Pair, Range(at=4, to=112)] = (28, 84)
    blur_sigma: Annotated[Pair, Range(at=0.1, to=20)] = (0.4, 2.0)
    noise_rms: Annotated[Pair, Range(at=0, to=64)] = (1.0, 8.0)
    smooth_rms: Annotated[Pair, Range(at=0, to=64)] = (4.0, 8.0)
    smooth_sigma: Annotated[Pair, Range(at=1, to=20)] = (1.0, 3.0)
    jpeg_quality: Annotated[Pair, Range(at=1, to=100)] = (30, 95)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Pairs in disorder."""
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, tuple) and value[0] > value[1]:
                yield one.name, "Give the lower value first."

    @classmethod
    def none(cls) -> Augmentation:
        """No change at all but that of the template."""
        return cls(**dict.fromkeys(CHANGES, 0.0))  # type: ignore[arg-type]


CHANGES = ("flip", "move", "makeup", "occlusion", "colour", "coarse", "blur", "noise", "smooth_noise", "jpeg")


@torch.no_grad()
def augment(
    batch: Tensor, generator: torch.Generator, config: Augmentation, *, template: CropTemplate = ARCFACE_112
) -> Tensor:
    """Faces changed at random, in the crop of a template; the same for the same state of the generator.

    Args:
        batch: (N, 3, 112, 112) float32 in [0, 1], aligned to the ArcFace template, on any device; left as it is.
        generator: Of the randomness; one on the batch's device spares copies.
        config: What happens how often.
        template: The crop to give. What lies outside the 112x112 crop is filled with its mirror image. Sampling is
            bilinear: a template in which the face is less than half as large aliases.

    Returns:
        (N, 3, template.height, template.width) float32 in [0, 1].

    Raises:
        UsageError: when the batch has another shape or type.
    """
    if batch.ndim != 4 or batch.shape[1:] != (3, SIDE, SIDE) or batch.dtype != torch.float32:
        raise UsageError(
            f"A batch of {batch.dtype} {tuple(batch.shape)} cannot be augmented.",
            hint="Give float32 of shape (N, 3, 112, 112).",
        )
    if not len(batch):
        return batch.new_empty(0, 3, template.height, template.width)
    draw = _Draws(generator, batch.device)
    images = batch.contiguous().clone()
    _befall(images, draw, config.makeup, lambda chosen: _made_up(chosen, draw, config))
    _befall(images, draw, config.occlusion, lambda chosen: _occluded(chosen, draw, config))
    images = _moved(images, draw, config, template)
    _befall(images, draw, config.colour, lambda chosen: _recoloured(chosen, draw, config))
    _befall(images, draw, config.coarse, lambda chosen: _coarse(chosen, draw, config))
    _befall(images, draw, config.blur, lambda chosen: _blurred(chosen, draw, config))
    _befall(images, draw, config.noise, lambda chosen: chosen + _noise(chosen, draw, config))
    _befall(images, draw, config.smooth_noise, lambda chosen: chosen + _smooth_noise(chosen, draw, config))
    images.clamp_(0, 1)
    _befall(images, draw, config.jpeg, lambda chosen: _compressed(chosen, draw, config))
    return images


class _Draws:
    """Random numbers, drawn where the generator is and brought to where the images are."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """Of variance one."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.device)

    def between(self, limits: Pair, *shape: int) -> Tensor:
        """Evenly between two limits."""
        return limits[0] + (limits[1] - limits[0]) * self.uniform(*shape)

    def around(self, most: float, *shape: int) -> Tensor:
        """Evenly between -most and most."""
        return self.between((-most, most), *shape)

    def whole(self, limits: Pair, count: int) -> Tensor:
        """Whole numbers between two limits, both among them."""
        low, high = round(limits[0]), round(limits[1])
        return (low + (high - low + 1) * self.uniform(count)).floor().clamp_max(high).long()


def _befall(images: Tensor, draw: _Draws, probability: float, change: Callable[[Tensor], Tensor]) -> None:
    """Change a random subset of the images in place."""
    if probability == 0:
        return
    chosen = (draw.uniform(len(images)) < probability).nonzero().squeeze(1)
    if len(chosen):
        images[chosen] = change(images[chosen])


def _moved(images: Tensor, draw: _Draws, config: Augmentation, template: CropTemplate) -> Tensor:
    count = len(images)
    moves = torch.eye(2, 3).repeat(count, 1, 1)
    if config.move > 0:
        chosen = (draw.uniform(count) < config.move).cpu().float()
        angle = draw.around(math.radians(config.rotation), count).cpu() * chosen
        scale = draw.between(config.scale, count).cpu() ** chosen
        cosine, sine = scale * angle.cos(), scale * angle.sin()
        linear = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
        shift = draw.around(config.shift, count, 2, 1).cpu() * chosen[:, None, None]
        middle = torch.full((2, 1), (SIDE - 1) / 2)
        moves = torch.cat([linear, middle - linear @ middle + shift], 2)
    if config.flip > 0:
        mirror = torch.tensor([(-1.0, 0, SIDE - 1), (0, 1, 0)])
        flipped = (draw.uniform(count) < config.flip).cpu()[:, None, None]
        moves = torch.where(flipped, compose(moves, mirror), moves)
    size = (template.height, template.width)
    if template != ARCFACE_112:
        moves = compose(alignments(ARCFACE_112.landmarks(), template).float(), moves)
    if size == (SIDE, SIDE) and torch.equal(moves, torch.eye(2, 3).expand_as(moves)):
        return images
    # From pixels of the new crop to pixels of the old, and these to the units of grid_sample, where centre q of n is
    # at (2 q + 1) / n - 1. Sums over rows and columns apart are several times as fast as affine_grid.
    back = invert(moves.double())
    to_units = torch.tensor([(2 / SIDE, 0, 1 / SIDE - 1), (0, 2 / SIDE, 1 / SIDE - 1)]).double()
    theta = compose(to_units, back).float().to(images.device)[:, :, :, None]
    x, y = (torch.arange(length, dtype=torch.float32, device=images.device) for length in reversed(size))
    along_x, along_y = theta[:, :, 0] * x, theta[:, :, 1] * y + theta[:, :, 2]
    grid = images.new_empty(count, *size, 2)
    for axis in range(2):
        torch.add(along_x[:, axis, None, :], along_y[:, axis, :, None], out=grid[..., axis])
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


@lru_cache(maxsize=8)
def _pixel_centres(device: torch.device) -> tuple[Tensor, Tensor]:
    """x (1, 112) and y (112, 1)."""
    line = torch.arange(SIDE, dtype=torch.float32, device=device)
    return line[None], line[:, None]


@lru_cache(maxsize=8)
def _places(device: torch.device) -> Tensor:
    """(3, 112 * 112) smooth spots of height one on lips, eyes and cheeks."""
    x, y = _pixel_centres(device)
    spots = []
    for place in (LIPS, EYES, CHEEKS):
        parts = [torch.exp(-(((x - px) / w) ** 2) - ((y - py) / h) ** 2) for px, py, w, h in place]
        spots.append(torch.stack(parts).sum(0).flatten())
    return torch.stack(spots)


def _made_up(images: Tensor, draw: _Draws, config: Augmentation) -> Tensor:
    count = len(images)
    shifts = draw.around(config.makeup_strength, count, 3, 3)  # image, colour, place
    # Mostly another colour, a little lighter or darker.
    shifts = shifts - 0.6 * shifts.mean(1, keepdim=True)
    on_places = (shifts @ _places(images.device)).view(count, 3, SIDE, SIDE)
    uneven = functional.interpolate(draw.between((0.3, 1.3), count, 1, 8, 8), (SIDE, SIDE), mode="bilinear")
    return (images + on_places * uneven).clamp(0, 1)


def _occluded(images: Tensor, draw: _Draws, config: Augmentation) -> Tensor:
    count, device = len(images), images.device
    kind = draw.whole((0, 3), count)  # rectangle, ellipse, glasses, mask
    anywhere = torch.cat([draw.between((8, SIDE - 8), count, 2), draw.between(config.occlusion_size, count, 2) * 56], 1)
    jitter = torch.cat([draw.around(3, count, 2), draw.between((0.8, 1.15), count, 2)], 1)
    bands = torch.tensor([GLASSES, MASK], device=device)[(kind - 2).clamp_min(0)]
    bands = torch.cat([bands[:, :2] + jitter[:, :2], bands[:, 2:] * jitter[:, 2:]], 1)
    patch = torch.where((kind < 2)[:, None], anywhere, bands)
    centre_x, centre_y, half_width, half_height = patch[:, :, None, None].unbind(1)
    angle = (draw.uniform(count) - 0.5)[:, None, None] * torch.where(kind < 2, math.pi, 0.15)[:, None, None]
    x, y = _pixel_centres(device)
    x, y = x - centre_x, y - centre_y
    across = ((x * angle.cos() + y * angle.sin()) / half_width).square()
    along = ((y * angle.cos() - x * angle.sin()) / half_height).square()
    inside = torch.where((kind == 1)[:, None, None], across + along, torch.maximum(across, along)) < 1
    fill = draw.uniform(count, 3, 1, 1).expand(-1, -1, SIDE, SIDE)
    noisy = (draw.uniform(count) < 0.3).nonzero().squeeze(1)
    if len(noisy):
        fill = fill.clone()
        fill[noisy] = draw.uniform(len(noisy), 3, SIDE, SIDE)
    return torch.where(inside[:, None], fill, images)


def _recoloured(images: Tensor, draw: _Draws, config: Augmentation) -> Tensor:
    count = len(images)
    brightness = draw.around(config.brightness, count)
    contrast, saturation, gamma = (
        draw.between(limits, count)[:, None, None, None]
        for limits in (config.contrast, config.saturation, config.gamma)
    )
    grey = images.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    # Saturation about grey and contrast about the mean, in one sum.
    offset = contrast * (1 - saturation) * grey + ((1 - contrast) * mean + brightness[:, None, None, None])
    return torch.addcmul(offset, images, contrast * saturation).clamp_(0, 1).pow_(gamma)


def _along_both(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Products (N, C, h, w) of images (N, C, H, W) with matrices (N, h, H) and (N, w, W)."""
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


@lru_cache(maxsize=8)
def _resampling(length: int, low: int, high: int, device: torch.device) -> Tensor:
    """(high - low + 1, length, length): down to each number of pixels by areas, and up again bilinearly."""
    line = torch.eye(length, device=device)[None]
    return torch.cat(
        [
            functional.interpolate(
                functional.interpolate(line, size=pixels, mode="area"), size=length, mode="linear"
            ).transpose(1, 2)
            for pixels in range(low, high + 1)
        ]
    )


def _coarse(images: Tensor, draw: _Draws, config: Augmentation) -> Tensor:
    low, high = (round(limit) for limit in config.coarse_side)
    place = draw.whole((low, high), len(images)) - low
    height, width = images.shape[2:]
    tables = []
    for length in (height, width):
        # A longer side is sampled as coarsely; in a crop of 150 pixels, 28 become 38.
        sides = torch.arange(low, high + 1).mul(length / SIDE).round().clamp(1, length).long()
        whole = _resampling(length, int(sides[0]), int(sides[-1]), images.device)
        tables.append(whole[(sides - sides[0]).to(images.device)[place]])
    return _along_both(images, tables[0], tables[1])


def _smoothing(sigma: Tensor, length: int, cells: int) -> Tensor:
    """(N, length, cells) Gaussian filters from evenly laid cells to pixels; weights sum to one at the border too."""
    pixel = torch.arange(length, dtype=torch.float32, device=sigma.device) + 0.5
    cell = (torch.arange(cells, dtype=torch.float32, device=sigma.device) + 0.5) * (length / cells)
    squares = (pixel[:, None] - cell).square()
    # softmax is the exponential with its sum brought to one.
    return torch.softmax(-squares / (2 * sigma.square())[:, None, None], dim=2)


def _smoothed(images: Tensor, sigma: Tensor, height: int, width: int) -> Tensor:
    rows = _smoothing(sigma, height, images.shape[2])
    square = height == width and images.shape[2] == images.shape[3]
    return _along_both(images, rows, rows if square else _smoothing(sigma, width, images.shape[3]))


def _blurred(images: Tensor, draw: _Draws, config: Augmentation) -> Tensor:
    height, width = images.shape[2:]
    return _smoothed(images, draw.between(config.blur_sigma, len(images)), height, width)


def _noise(images: Tensor, draw: _Draws, config: Augmentation) -> Tensor:
    rms = draw.between(config.noise_rms, len(images))[:, None, None, None] / 255
    return rms * draw.normal(*images.shape)


def _smooth_noise(images: Tensor, draw: _Draws, config: Augmentation) -> Tensor:
    rms = draw.between(config.smooth_rms, len(images))[:, None, None, None] / 255
    height, width = images.shape[2:]
    # Every second pixel is enough, since the filter spans several.
    white = draw.normal(len(images), 3, -(-height // 2), -(-width // 2))
    smooth = _smoothed(white, draw.between(config.smooth_sigma, len(images)), height, width)
    return smooth * (rms / smooth.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6))


def _compressed(images: Tensor, draw: _Draws, config: Augmentation) -> Tensor:
    import cv2

    qualities = draw.whole(config.jpeg_quality, len(images)).tolist()
    halved = (draw.uniform(len(images)) < 0.7).tolist()
    # OpenCV counts blue first; the copy back undoes it.
    pixels = (images * 255).round().byte().flip(1).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    for picture, quality, half in zip(pixels, qualities, halved, strict=True):
        chroma = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if half else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, chroma]
        _, coded = cv2.imencode(".jpg", picture, options)
        picture[:] = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return torch.from_numpy(pixels).to(images.device).permute(0, 3, 1, 2).flip(1).float() / 255
