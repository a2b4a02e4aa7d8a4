"""Checks of the reference itself: published counts and shapes, and naive loops in float64."""

import itertools
import math

import torch

import adversaries
import gate
import losses
import nets
import vaegan


def count(shapes, biases=None):
    return sum(math.prod(s) + (biases[k] if biases else s[0]) for k, s in shapes.items())


def generator_count(features, crop=227):
    return count(nets.generator_shapes(features, crop), nets.generator_biases(features, crop))


def parameter_counts():
    assert count(nets.CAFFENET_SHAPES) == 60_965_224
    assert count(nets.ALEXNET_SHAPES) == 61_100_840
    for features, millions in (((4096,), 56.10), ((1000,), 43.42), ((256, 6), 12.70)):
        found = generator_count(features) / 1e6
        assert abs(found - millions) < 0.005, (features, found)


def shape_tables():
    zeros = {}
    for name, shape in nets.CAFFENET_SHAPES.items():
        zeros[name + ".weight"], zeros[name + ".bias"] = torch.zeros(shape), torch.zeros(shape[0])
    found = nets.caffenet(zeros, torch.zeros(1, 3, 227, 227), set(nets.CAFFENET_TAPS))
    sides = {"conv1": 55, "pool1": 27, "norm1": 27, "conv2": 27, "pool2": 13, "norm2": 13}
    sides |= {"conv3": 13, "conv4": 13, "conv5": 13, "pool5": 6}
    for tap, side in sides.items():
        assert found[tap].shape[2:] == (side, side), (tap, found[tap].shape)
    assert found["relu6"].shape == (1, 4096) and found["fc8"].shape == (1, 1000)

    plan, size = nets.discriminator_plan(227)
    assert (len(plan), size) == (5, 11)
    assert nets.discriminator_plan(64)[1] == 3  # without Dconv5
    assert "Dconv5" not in nets.discriminator_shapes(64)
    assert nets.discriminator_shapes(40)["Dconv4"] == (256, 64, 3, 3)  # without Dconv3 too

    shapes = nets.generator_shapes((256, 6), 227)
    assert shapes["Rconv8"] == (512, 512, 3, 3) and shapes["deconv5"] == (512, 256, 4, 4)
    assert shapes["conv5_1"] == (256, 512, 3, 3) and shapes["deconv0"] == (32, 3, 4, 4)
    assert nets.generator_shapes((256, 3), 128)["deconv0"] == (64, 3, 4, 4)
    assert nets.generator_shapes((256, 3), 64)["deconv0"] == (128, 3, 4, 4)
    for size, entry, kernel, padding in ((6, 4, 3, 0), (3, 4, 2, 1), (5, 4, 2, 0), (7, 8, 2, 1), (13, 16, 2, 2)):
        front, trunk, _ = nets.generator_plan((256, size), 227)
        assert front[2][3] == kernel and front[2][5] == padding, (size, front)
        assert size + 2 * padding - kernel + 1 == entry
        assert trunk[0][0] == {4: "deconv5", 8: "deconv4", 16: "deconv3"}[entry]
    for features, crop in (((1000,), 227), ((256, 13), 128), ((192, 7), 64), ((64, 27), 100)):
        shapes, biases = nets.generator_shapes(features, crop), nets.generator_biases(features, crop)
        w = {k + ".weight": torch.zeros(s) for k, s in shapes.items()}
        w |= {k + ".bias": torch.zeros(n) for k, n in biases.items()}
        y = torch.zeros(1, *features, *features[1:])
        assert nets.generator(w, y, features, crop).shape == (1, 3, crop, crop)


def naive_layers():
    torch.manual_seed(0)
    x = torch.randn(1, 7, 6, 8, dtype=torch.float64) * 100
    for ceil in (True, False):
        rounding = math.ceil if ceil else math.floor
        rows, columns = (rounding((n - 3) / 2) + 1 for n in x.shape[2:])
        pooled = nets.max_pool(x, ceil)
        assert pooled.shape[2:] == (rows, columns)
        for i, j in itertools.product(range(rows), range(columns)):
            window = x[0, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].flatten(1)
            assert torch.equal(pooled[0, :, i, j], window.max(1).values)
    found = nets.lrn(x)
    for c in range(7):
        near = x[0, max(0, c - 2) : c + 3]
        expected = x[0, c] / (1.0 + 1e-4 / 5 * (near**2).sum(0)) ** 0.75
        assert torch.allclose(found[0, c], expected, rtol=1e-12)
    # A 4x4 stride-2 transposed convolution is bed-of-nails upsampling and a flipped convolution.
    w = torch.randn(7, 5, 4, 4, dtype=torch.float64)
    nails = torch.zeros(1, 7, 12, 16, dtype=torch.float64)
    nails[:, :, ::2, ::2] = x
    padded = torch.nn.functional.pad(nails, (2, 1, 2, 1))
    plain = torch.nn.functional.conv2d(padded, w.flip(2, 3).transpose(0, 1))
    assert torch.allclose(torch.nn.functional.conv_transpose2d(x, w, None, 2, 1), plain)


def colours():
    red = torch.tensor([255.0, 10.0, 20.0]).view(1, 3, 1, 1)
    assert nets.to_caffe(red).flatten().tolist() == [20 - 104, 10 - 117, 255 - 123]
    assert torch.equal(nets.from_caffe(nets.to_caffe(red)), red)


def loss_values():
    half = torch.zeros(4, 2)
    real, fake = losses.discriminating(half, half, "caffe")
    assert math.isclose(float(real + fake), 2 * math.log(2), rel_tol=1e-6)
    assert math.isclose(float(losses.adversarial(half, "paper")), 4 * math.log(2), rel_tol=1e-6)
    a, b = torch.ones(2, 3), torch.zeros(2, 3)
    assert [float(losses.squared_distance(a, b, r)) for r in losses.REDUCTIONS] == [1.5, 6.0, 1.0]


def pairing_scores_hundred():
    torch.manual_seed(1)
    truth = torch.randn(12, 30, dtype=torch.float64)
    all_shifts = [losses.normalised_error(truth.roll(s, 0), truth) for s in range(1, 12)]
    assert math.isclose(sum(all_shifts) / 11, 100.0, rel_tol=1e-12)


def gate_by_hand():
    def play(*ratios):
        return gate.gate([(r, 0.0, 1.0) for r in ratios])

    on, d_off, g_off = (True, True), (False, True), (True, False)
    assert play(1.0, 0.1, 0.05, 0.3, 0.5, 0.6) == [on, on, d_off, d_off, d_off, on]
    assert play(10.0, 11.0, 1.0, 0.3, 0.05, 20.0) == [on, g_off, g_off, g_off, d_off, g_off]
    assert gate.gate([(0.1, 0.1, 0.0)]) == [g_off]


def vaegan_parameter_counts():
    # 64 x 64, 128 codes. A norm has a weight and a bias for each output channel or unit.
    # E: 75*64 + 1600*128 + 3200*256 + 16384*1024 = 17,806,016 weights; norms 2*(64+128+256+1024) = 2,944;
    #    heads 2*(1024*128+128) = 262,400.
    # G: 128*16384 + 6400*256 + 6400*128 + 3200*32 = 4,657,152 weights; norms 2*(16384+256+128+32) = 33,600;
    #    Gconv4 800*3+3 = 2,403.
    # D: Dconv1 75*32+32 = 2,432; 800*128 + 3200*256 + 6400*256 + 16384*512 = 10,948,608 weights;
    #    norms 2*(128+256+256+512) = 2,304; Dfc6 512+1 = 513.
    found = {}
    for net, layers in vaegan.shapes(64, 128, 1.0).items():
        w = vaegan.initial_weights(Zeros(), layers)
        found[net] = sum(v.numel() for v in vaegan.learnt(w).values())
    assert found == {"E": 18_071_360, "G": 4_693_155, "D": 10_953_857}, found
    assert [vaegan.channels(n, 0.125) for n in (32, 64, 128, 256, 1024)] == [8, 8, 16, 32, 128]
    assert [vaegan.channels(n, 0.35) for n in (32, 64, 128, 1024)] == [8, 24, 48, 360]


class Zeros:
    def normal(self, shape, std=1.0):
        return torch.zeros(shape)


def vaegan_sizes():
    for base in (1, 2, 3):
        shapes = vaegan.shapes(8 * base, 5, 0.125)
        e, g, d = (vaegan.initial_weights(Zeros(), shapes[net]) for net in "EGD")
        x = torch.randn(3, 32, base, base)
        for name in ("Gup1", "Gup2", "Gup3"):
            side = 2 * x.shape[2]
            x = vaegan.double(g, name, x)
            assert x.shape[2:] == (side, side)
        image = vaegan.decode(g, torch.zeros(3, 5), "batch")
        assert image.shape == (3, 3, 8 * base, 8 * base)
        assert [t.shape for t in vaegan.encode(e, image, "batch")] == [(3, 5)] * 2
        assert vaegan.discriminator_features(d, image, "batch").shape == (3, 32, base, base)
        assert vaegan.discriminate(d, image, "batch").shape == (3,)


def vaegan_norm():
    torch.manual_seed(3)
    x = torch.randn(4, 2, 3, 3, dtype=torch.float64) * 3 + 1
    before = {"weight": [2.0, 0.5], "bias": [0.1, -1.0]}
    before |= {"running_mean": [5.0, 6.0], "running_var": [7.0, 8.0]}
    w = {f"n.norm.{k}": torch.tensor(v, dtype=torch.float64) for k, v in before.items()}
    kept = {k: v.clone() for k, v in w.items()}
    found = vaegan.norm(w, "n", x, "batch")
    assert all(torch.equal(w[k], kept[k]) for k in w)
    for c in range(2):
        v = x[:, c].flatten().tolist()
        mean = sum(v) / 36
        squares = sum((t - mean) ** 2 for t in v)
        expected = (x[:, c] - mean) / math.sqrt(squares / 36 + 1e-6)
        expected = expected * before["weight"][c] + before["bias"][c]
        assert torch.allclose(found[:, c], expected, rtol=1e-12)
    assert torch.equal(vaegan.norm(w, "n", x, "update"), found)
    mean, var = w["n.norm.running_mean"], w["n.norm.running_var"]
    assert math.isclose(mean[1], 0.9 * 6 + 0.1 * sum(v) / 36, rel_tol=1e-12)
    assert math.isclose(var[1], 0.9 * 8 + 0.1 * squares / 35, rel_tol=1e-12)
    by_running = (x[:, 1] - mean[1]) / torch.sqrt(var[1] + 1e-6) * 0.5 - 1
    assert torch.allclose(vaegan.norm(w, "n", x, "running")[:, 1], by_running, rtol=1e-12)


def vaegan_rmsprop():
    torch.manual_seed(2)
    decayed = "Econv1.weight"
    plain = ("Econv1.norm.weight", "mean.weight", "log_variance.weight", "Dfc6.bias")
    assert vaegan.decays(decayed) and not any(map(vaegan.decays, plain))
    w = {k: torch.randn(3, 4, dtype=torch.float64) for k in (decayed, *plain)}
    theirs = {k: v.clone().requires_grad_() for k, v in w.items()}
    groups = [
        {"params": [theirs[decayed]], "weight_decay": 0.1},
        {"params": [theirs[k] for k in plain], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.RMSprop(groups, lr=1e-2, alpha=0.9, eps=1e-8, foreach=False)
    squares = {k: torch.zeros_like(v) for k, v in w.items()}
    for _ in range(5):
        grads = {k: torch.randn(3, 4, dtype=torch.float64) for k in w}
        for k, v in theirs.items():
            v.grad = grads[k].clone()
        optimizer.step()
        vaegan.rmsprop_step(w, grads, squares, 1e-2, 0.1)
        assert all(torch.allclose(w[k], v, rtol=1e-12) for k, v in theirs.items())


def vaegan_losses():
    zeros = torch.zeros(2, 3)
    assert math.isclose(vaegan.kl(zeros + 2, zeros), 3 * (4 + 1) / 2)
    # One grey level in each of 3 numbers, half of that squared.
    assert math.isclose(vaegan.image_loss(zeros + 2 / 255, zeros), 1.5, rel_tol=1e-6)
    real, fake = vaegan.label_losses(torch.tensor([0.0, 50.0, 50.0]), 2)
    assert torch.allclose(real, -torch.tensor([0.501, 1.001]).log(), rtol=1e-5)
    assert torch.allclose(fake, -torch.tensor([0.001]).log(), rtol=1e-3)


def vaegan_gate():
    # Either loss below 0.5: D rests. Either above 1: G rests. Both would: neither does. (G, D) trains.
    both, g, d = (True, True), (True, False), (False, True)
    table = {
        (0.75, 0.75): both, (0.4, 0.75): g, (0.75, 0.4): g, (0.4, 0.4): g,
        (1.1, 0.75): d, (0.75, 1.1): d, (1.1, 1.1): d, (0.4, 1.1): both, (1.1, 0.4): both,
        (0.5, 1.0): both, (1.0, 0.5): both,
    }
    for losses_of_d, expected in table.items():
        assert vaegan.gate(*losses_of_d, 0.75, 0.25) == expected, losses_of_d


def spectral_norm():
    torch.manual_seed(4)
    conv = torch.nn.Conv2d(3, 8, 4, dtype=torch.float64)
    theirs = torch.nn.utils.spectral_norm(conv)
    w = {f"main.0.{k}": v.clone() for k, v in theirs.state_dict().items()}
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    found = theirs.train()(x)
    adversaries.iterate_spectral(w)
    for part in ("weight_u", "weight_v"):
        assert torch.allclose(w[f"main.0.{part}"], getattr(theirs, part), rtol=1e-12), part
    w["main.0.weight_orig"].requires_grad_()
    ours = torch.nn.functional.conv2d(x, adversaries.filters(w, "main.0"), w["main.0.bias"])
    assert torch.allclose(ours, found, rtol=1e-10)
    (gradient,) = torch.autograd.grad((ours**3).sum(), w["main.0.weight_orig"])
    (expected,) = torch.autograd.grad((found**3).sum(), theirs.weight_orig)
    assert torch.allclose(gradient, expected, rtol=1e-8, atol=1e-10)


def adversarial_losses():
    real, fake = torch.tensor([[2.0, -0.5]]), torch.tensor([[-3.0, 1.0]])
    of_hinge = adversaries.discriminating("hinge", real, fake)
    assert [float(t) for t in of_hinge] == [1.5 / 4, 2.0 / 4]
    assert float(adversaries.generating("hinge", fake)) == 1.0
    # Two classes, of which the second has the logit 0.
    classes = torch.stack([fake.flatten(), torch.zeros(2)], 1)
    for game in ("cross-entropy", "non-saturating"):
        found = adversaries.generating(game, fake)
        assert math.isclose(float(found), float(losses.adversarial(classes, "caffe")), rel_tol=1e-6)


def main():
    for check in (
        parameter_counts,
        shape_tables,
        naive_layers,
        colours,
        loss_values,
        pairing_scores_hundred,
        gate_by_hand,
        vaegan_parameter_counts,
        vaegan_sizes,
        vaegan_norm,
        vaegan_rmsprop,
        vaegan_losses,
        vaegan_gate,
        spectral_norm,
        adversarial_losses,
    ):
        check()
        print(f"ok {check.__name__}")
    return 0
