"""python -m tools.peers.autoencoder_peers: writes what PyTorch says of the autoencoder's losses.

The networks and losses of latent diffusion are written here once more, in PyTorch and float64, and
their gradients by autograd, the ratio of gradient norms included, are kept as numbers per tensor:
the sum of squares, and the product with a fixed wave. Parameters and pictures come from formulas of
their place, so that the file holds results alone. The norm of the discriminator is by groups, as
diffjax has it. tests/tasks/test_autoencoding.py compares. Needs requirements-peers.txt.
"""

import json
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.inputs.autoencoder_inputs import (
    ADVERSARY,
    CODES,
    FILE,
    JUDGE_WIDTH,
    KL,
    LATENT,
    WIDTHS,
    latent_eps,
    parameter,
    picture,
    wave,
)


class Net:
    """Parameters by name, made when they are first used."""

    def __init__(self) -> None:
        self.made: dict[str, Tensor] = {}

    def get(self, name: str, *shape: int) -> Tensor:
        """The parameter, a leaf of the graph."""
        if name not in self.made:
            value = torch.tensor(parameter(name, shape), dtype=torch.float64)
            self.made[name] = value.requires_grad_()
        return self.made[name]

    def conv(
        self,
        name: str,
        x: Tensor,
        out: int,
        k: int = 3,
        stride: int = 1,
        pad: int | None = None,
        bias: bool = True,
    ) -> Tensor:
        """A convolution; kernels are [i j c d]."""
        kernel = self.get(f"{name}/kernel", k, k, x.shape[1], out).permute(3, 2, 0, 1).contiguous()
        offset = self.get(f"{name}/bias", out) if bias else None
        return F.conv2d(x, kernel, offset, stride, k // 2 if pad is None else pad)

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        """Group norm with diffjax's number of groups."""
        c = x.shape[1]
        groups = math.gcd(32, max(1, c // 4))
        return F.group_norm(
            x, groups, self.get(f"{name}/scale", c), self.get(f"{name}/bias", c), eps
        )

    def res(self, name: str, h: Tensor, width: int) -> Tensor:
        """The residual block."""
        r = self.conv(f"{name}/conv_0", F.silu(self.norm(f"{name}/norm_0", h, 1e-6)), width)
        r = self.conv(f"{name}/conv_1", F.silu(self.norm(f"{name}/norm_1", r, 1e-6)), width)
        return (self.conv(f"{name}/skip", h, width, 1) if h.shape[1] != width else h) + r

    def attention(self, name: str, h: Tensor) -> Tensor:
        """One head over all pixels."""
        b, c, height, width = h.shape
        x = self.norm(f"{name}/norm", h, 1e-6).flatten(2).transpose(1, 2)
        qkv = x @ self.get(f"{name}/qkv/kernel", c, 3 * c) + self.get(f"{name}/qkv/bias", 3 * c)
        q, k, v = qkv.split(c, dim=-1)
        mixed = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(c), dim=-1) @ v
        out = mixed @ self.get(f"{name}/out/kernel", c, c) + self.get(f"{name}/out/bias", c)
        return h + out.transpose(1, 2).reshape(b, c, height, width)

    def middle(self, name: str, h: Tensor) -> Tensor:
        """Block, attention, block."""
        h = self.res(f"{name}/middle_0", h, h.shape[1])
        h = self.attention(f"{name}/middle_attention", h)
        return self.res(f"{name}/middle_1", h, h.shape[1])


def encode(net: Net, x: Tensor, out: int) -> Tensor:
    """The encoder with one block a level."""
    at = "autoencoder/encoder"
    h = net.conv(f"{at}/stem", x, WIDTHS[0])
    h = net.res(f"{at}/level_0_0", h, WIDTHS[0])
    h = net.conv(f"{at}/halve_0/conv", F.pad(h, (0, 1, 0, 1)), WIDTHS[0], stride=2, pad=0)
    h = net.middle(at, net.res(f"{at}/level_1_0", h, WIDTHS[1]))
    h = net.conv(f"{at}/head", F.silu(net.norm(f"{at}/norm", h, 1e-6)), out)
    return net.conv("autoencoder/moments", h, out, 1)


def decode(net: Net, z: Tensor) -> Tensor:
    """The decoder with two blocks a level."""
    at = "autoencoder/decoder"
    h = net.conv(f"{at}/stem", net.conv("autoencoder/latent", z, LATENT, 1), WIDTHS[1])
    h = net.middle(at, h)
    for i in range(2):
        h = net.res(f"{at}/level_1_{i}", h, WIDTHS[1])
    h = net.conv(
        f"{at}/double_1/conv", h.repeat_interleave(2, 2).repeat_interleave(2, 3), WIDTHS[1]
    )
    for i in range(2):
        h = net.res(f"{at}/level_0_{i}", h, WIDTHS[0])
    return net.conv("autoencoder/last", F.silu(net.norm(f"{at}/norm", h, 1e-6)), 3)


def judge(net: Net, x: Tensor) -> Tensor:
    """The discriminator with one halving."""
    h = F.leaky_relu(net.conv("discriminator/conv_0", x, JUDGE_WIDTH, 4, 2, 1), 0.2)
    h = net.conv("discriminator/conv_1", h, 2 * JUDGE_WIDTH, 4, 1, 1, bias=False)
    h = F.leaky_relu(net.norm("discriminator/norm_1", h, 1e-5), 0.2)
    return net.conv("discriminator/verdict", h, 1, 4, 1, 1)


def gaussian(net: Net, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(pictures, mean loss without the adversary, loss whose gradient is balanced)."""
    mean, log_variance = encode(net, x, 2 * LATENT).chunk(2, dim=1)
    eps = torch.tensor(latent_eps()).permute(0, 3, 1, 2)
    made = decode(net, mean + torch.exp(0.5 * log_variance) * eps)
    v = net.get("log_variance", 1)
    rebuilt = (torch.abs(x - made) / torch.exp(v) + v).sum() / len(x)
    kl = 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance).sum() / len(x)
    return made, rebuilt + KL * kl, rebuilt


def quantised(net: Net, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with a codebook; losses are means over values."""
    z = encode(net, x, LATENT)
    codes = net.get("autoencoder/codebook/codes", CODES, LATENT)
    places = z.permute(0, 2, 3, 1)
    away = ((places[..., None, :] - codes) ** 2).sum(-1)
    chosen = codes[away.argmin(-1)]
    part = ((chosen - places.detach()) ** 2).mean() + 0.25 * (
        (places - chosen.detach()) ** 2
    ).mean()
    straight = places + (chosen - places).detach()
    made = decode(net, straight.permute(0, 3, 1, 2))
    rebuilt = torch.abs(x - made).mean()
    return made, rebuilt + part, rebuilt


def numbers(kind: str) -> dict[str, list[float]]:
    """Of each parameter's gradient: the sum of squares, and the product with a wave."""
    net = Net()
    # as diffjax reads bytes: in float32
    x = (torch.tensor(picture()).float() / 127.5 - 1.0).double().permute(0, 3, 1, 2)
    made, loss, rebuilt = (gaussian if kind == "gaussian" else quantised)(net, x)
    against = -judge(net, made).mean()
    last = net.made["autoencoder/last/kernel"]
    norms = [
        torch.autograd.grad(one, last, retain_graph=True)[0].norm() for one in (rebuilt, against)
    ]
    ratio = torch.clamp(norms[0] / (norms[1] + 1e-4), 0.0, 1e4).detach()
    unit = x[0].numel() if kind == "gaussian" else 1
    builder = (loss + ADVERSARY * ratio * against) / unit
    hinge = 0.5 * (F.relu(1 - judge(net, x)).mean() + F.relu(1 + judge(net, made.detach())).mean())
    mine = [name for name in net.made if not name.startswith("discriminator")]
    theirs = [name for name in net.made if name.startswith("discriminator")]
    found = dict(zip(mine, torch.autograd.grad(builder, [net.made[n] for n in mine]), strict=True))
    found |= dict(
        zip(theirs, torch.autograd.grad(hinge, [net.made[n] for n in theirs]), strict=True)
    )
    of = {"loss": [float((builder + hinge).detach()), float(ADVERSARY * ratio)]}
    for name, gradient in sorted(found.items()):
        values = gradient.numpy()
        of[name] = [float((values**2).sum()), float((values * wave("product", values.shape)).sum())]
    return of


def main() -> None:
    """Write the file."""
    FILE.parent.mkdir(exist_ok=True)
    found = {kind: numbers(kind) for kind in ("gaussian", "quantised")}
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
