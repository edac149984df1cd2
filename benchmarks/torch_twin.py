"""A plain PyTorch twin of the renderer's generator, to time against; it is not part of the package.

Written from this project's own Flax networks. It reads the state dict of a reference checkpoint strictly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ctjax.render.generator import GeneratorConfig

KEYPOINT_VARIANCE = 0.01


def _conv(rank: int, *arguments, **options) -> nn.Module:
    return (nn.Conv2d if rank == 2 else nn.Conv3d)(*arguments, **options)


def _norm(rank: int, channels: int) -> nn.Module:
    return (nn.BatchNorm2d if rank == 2 else nn.BatchNorm3d)(channels)


def _scale(rank: int) -> tuple[int, ...]:
    return (1,) * (rank - 2) + (2, 2)


class ConvBlock(nn.Module):
    def __init__(self, channels, out_channels, kernel=3, rank=2, slope=0.0):
        super().__init__()
        self.conv = _conv(rank, channels, out_channels, kernel, padding=kernel // 2)
        self.norm = _norm(rank, out_channels)
        self.slope = slope

    def forward(self, x):
        return F.leaky_relu(self.norm(self.conv(x)), self.slope)


class DownBlock(ConvBlock):
    def forward(self, x):
        x = super().forward(x)
        return F.avg_pool2d(x, 2) if x.ndim == 4 else F.avg_pool3d(x, (1, 2, 2))


class UpBlock(ConvBlock):
    def forward(self, x):
        return super().forward(F.interpolate(x, scale_factor=_scale(x.ndim - 2)))


class ResBlock(nn.Module):
    def __init__(self, channels, rank):
        super().__init__()
        self.conv1, self.conv2 = (_conv(rank, channels, channels, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (_norm(rank, channels) for _ in range(2))

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


class Hourglass(nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        width = [min(config.max_features, config.block_expansion * 2**i) for i in range(config.num_blocks + 1)]
        downs = [channels, *width[1:]]
        self.encoder = nn.Module()
        self.encoder.down_blocks = nn.ModuleList(
            DownBlock(downs[i], downs[i + 1], rank=3) for i in range(config.num_blocks)
        )
        self.decoder = nn.Module()
        levels = range(config.num_blocks, 0, -1)
        self.decoder.up_blocks = nn.ModuleList(
            UpBlock(width[i] * (1 if i == config.num_blocks else 2), width[i - 1], rank=3) for i in levels
        )
        self.out_channels = config.block_expansion + channels
        self.decoder.conv = nn.Conv3d(self.out_channels, self.out_channels, 3, padding=1)
        self.decoder.norm = nn.BatchNorm3d(self.out_channels)

    def forward(self, x):
        levels = [x]
        for block in self.encoder.down_blocks:
            levels.append(block(levels[-1]))
        x = levels.pop()
        for block in self.decoder.up_blocks:
            x = torch.cat([block(x), levels.pop()], dim=1)
        return F.relu(self.decoder.norm(self.decoder.conv(x)))


def _grid(shape, like):
    axes = [torch.linspace(-1, 1, n, device=like.device, dtype=like.dtype) for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], dim=-1)


class DenseMotion(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.compress = nn.Conv3d(config.feature_channel, config.compress, 1)
        self.norm = nn.BatchNorm3d(config.compress)
        self.hourglass = Hourglass((config.num_kp + 1) * (config.compress + 1), config)
        channels = self.hourglass.out_channels
        self.mask = nn.Conv3d(channels, config.num_kp + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(channels * config.reshape_depth, 1, 7, padding=3)

    def forward(self, features, source, driving):
        b, _, d, h, w = features.shape
        grid = _grid((d, h, w), source)
        moved = grid[None, None] + (source - driving)[:, :, None, None, None]
        motions = torch.cat([grid.expand(b, 1, d, h, w, 3), moved], dim=1)
        k = motions.shape[1]
        compressed = F.relu(self.norm(self.compress(features)))
        repeated = compressed[:, None].expand(-1, k, -1, -1, -1, -1).flatten(0, 1)
        warped = F.grid_sample(repeated, motions.flatten(0, 1).to(repeated.dtype), align_corners=False)
        heat = [torch.exp(-0.5 * ((grid - p[:, :, None, None, None]) ** 2).sum(-1) / KEYPOINT_VARIANCE)
                for p in (driving, source)]  # fmt: skip
        heat = torch.cat([torch.zeros_like(heat[0][:, :1]), heat[0] - heat[1]], dim=1).to(warped.dtype)
        stacked = torch.cat([heat[:, :, None], warped.unflatten(0, (b, k))], dim=2).flatten(1, 2)
        hidden = self.hourglass(stacked)
        mask = torch.softmax(self.mask(hidden).float(), dim=1)
        deformation = (mask[..., None] * motions).sum(1)
        return deformation, torch.sigmoid(self.occlusion(hidden.flatten(1, 2)))


class SpectralConv(nn.Module):
    """A convolution whose weight is divided by u^T W v from the stored vectors, at every call as in the reference."""

    def __init__(self, channels, out_channels, kernel, bias=True):
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(out_channels, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.register_buffer("weight_u", torch.empty(out_channels))
        self.register_buffer("weight_v", torch.empty(channels * kernel * kernel))
        self.padding = kernel // 2

    def forward(self, x):
        sigma = torch.dot(self.weight_u, self.weight_orig.flatten(1) @ self.weight_v)
        return F.conv2d(x, self.weight_orig / sigma, self.bias, padding=self.padding)


class Spade(nn.Module):
    def __init__(self, channels, map_channels, hidden):
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(map_channels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x, feature_map):
        hidden = self.mlp_shared(F.interpolate(feature_map, size=x.shape[2:]))
        return F.instance_norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class SpadeBlock(nn.Module):
    def __init__(self, channels, out_channels, map_channels, hidden):
        super().__init__()
        middle = min(channels, out_channels)
        self.conv_0, self.conv_1 = SpectralConv(channels, middle, 3), SpectralConv(middle, out_channels, 3)
        self.norm_0, self.norm_1 = Spade(channels, map_channels, hidden), Spade(middle, map_channels, hidden)
        self.projects = channels != out_channels
        if self.projects:
            self.conv_s = SpectralConv(channels, out_channels, 1, bias=False)
            self.norm_s = Spade(channels, map_channels, hidden)

    def forward(self, x, feature_map):
        y = self.conv_0(F.leaky_relu(self.norm_0(x, feature_map), 0.2))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, feature_map), 0.2))
        return y + (self.conv_s(self.norm_s(x, feature_map)) if self.projects else x)


class SpadeDecoder(nn.Module):
    def __init__(self, config, image_channels):
        super().__init__()
        wide, modulation = 2 * config.ic, (config.label_nc, config.hidden)
        self.fc = nn.Conv2d(config.ic, wide, 3, padding=1)
        self.middle = config.middle_blocks
        for i in range(self.middle):
            setattr(self, f"G_middle_{i}", SpadeBlock(wide, wide, *modulation))
        self.up_0, self.up_1 = SpadeBlock(wide, config.ic, *modulation), SpadeBlock(config.ic, config.oc, *modulation)
        self.conv_img = nn.Conv2d(config.oc, image_channels, 3, padding=1)

    def forward(self, m):
        x = self.fc(m)
        for i in range(self.middle):
            x = getattr(self, f"G_middle_{i}")(x, m)
        for block in (self.up_0, self.up_1):
            x = block(F.interpolate(x, scale_factor=2), m)
        return torch.sigmoid(self.conv_img(F.leaky_relu(x, 0.2)))


class TorchGenerator(nn.Module):
    """RGB "b 3 h w" in [0, 1] and keypoints "b k 3" -> RGB "b 3 h w"."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        width = [min(config.max_features, config.block_expansion * 2**i) for i in range(config.num_down_blocks + 1)]
        self.first = ConvBlock(config.image_channel, config.block_expansion)
        self.down_blocks = nn.ModuleList(DownBlock(width[i], width[i + 1]) for i in range(config.num_down_blocks))
        self.second = nn.Conv2d(width[-1], config.max_features, 1)
        self.resblocks_3d = nn.Sequential()
        for i in range(config.num_resblocks):
            self.resblocks_3d.add_module(f"3dr{i}", ResBlock(config.reshape_channel, 3))
        self.dense_motion_network = DenseMotion(config.dense_motion)
        self.third = ConvBlock(config.max_features, width[-1], slope=0.01)
        self.fourth = nn.Conv2d(width[-1], width[-1], 1)
        self.decoder = SpadeDecoder(config.spade, config.image_channel)

    def forward(self, image, source, driving):
        x = self.first(image)
        for block in self.down_blocks:
            x = block(x)
        x = self.second(x)
        features = self.resblocks_3d(x.unflatten(1, (self.config.reshape_channel, self.config.reshape_depth)))
        deformation, occlusion = self.dense_motion_network(features, source, driving)
        warped = F.grid_sample(features, deformation.to(features.dtype), align_corners=False)
        return self.decoder(self.fourth(self.third(warped.flatten(1, 2))) * occlusion)
