"""The command `scenes`: prompts, models and what it says where either is wrong."""

import dataclasses

import jax
import numpy as np
import pytest
from command import fails, invoke
from densities import untrained

import numpyro_diffusion as nd
from numpyro_diffusion.cli import cubes as side_by_side
from numpyro_diffusion.cli import scenes
from numpyro_diffusion.datasets import captioned_scenes

TEXT = dataclasses.replace(captioned_scenes.TEXT, width=16, num_blocks=1)
NETWORK = {"shape": (8, 8, 3), "width": 8, "multipliers": (1,), "num_blocks": 1, "embedding_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """p.safetensors knows captions, q.safetensors does not; neither is trained."""
    path = tmp_path_factory.mktemp("scenes")
    for name, settings in {"p": {"text": TEXT, "condition_size": TEXT.max_tokens}, "q": {}}.items():
        config = nd.UNetConfig(**NETWORK, normalise=False, small_start=True, **settings)
        density = untrained(config, (8, 8, 3), mean=np.zeros(192), covariance=np.full(192, 0.3), sigma_max=5.0)
        density.name = name
        nd.save(density, path / f"{name}.safetensors")
    return path


@pytest.mark.slow
def test_a_prompt_is_drawn(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "LEVELS", 3)
    options = ["--prompt", '"a cube" AND NOT "sunny"', "--model", folder / "p.safetensors", "--images", 2]
    options += ["--output", tmp_path / "scenes.png"]
    result = invoke("scenes", *options)
    assert result.exit_code == 0, result.output
    said = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert said[0] == '0.01 * p|"a cube" * p / (0.99 * p|"sunny" + 0.01 * p)' and {"reverse", "HMC"} < set(said)
    assert (tmp_path / "scenes.png").read_bytes().startswith(b"\x89PNG")
    assert "exists" in fails("scenes", *options)


def wrong(prompt, folder, model="p"):
    result = invoke("scenes", "--prompt", prompt, "--model", folder / f"{model}.safetensors", "--output", "none.png")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    return result.stderr.splitlines()


def test_a_wrong_prompt_is_pointed_at_below(folder):
    assert wrong('"a cube" AND "a bal"', folder) == [
        "Error: column 17: the word 'bal' is not known. The nearest that is: 'ball'.",
        '  "a cube" AND "a bal"', "                  ^^^",
    ]  # fmt: skip
    first, text, marks = wrong('("sand" OR "snow"', folder)
    assert "no ) for this (" in first and marks == "  ^" and text == '  ("sand" OR "snow"'
    assert "a prompt needs a caption" in wrong("", folder)[0]


def test_the_model_need_not_be_said(folder, monkeypatch):
    monkeypatch.setattr(scenes, "load_model", lambda name: nd.load(folder / "p.safetensors"))
    monkeypatch.setattr(scenes, "PRETRAINED", "ring")
    assert "is a folder" in fails("scenes", "--prompt", '"sand"', "--output", folder.parent / folder.name)


def test_models_that_do_not_do(folder, monkeypatch):
    assert "knows no captions" in wrong('"sand"', folder, "q")[0]
    assert "there is no file" in wrong('"sand"', folder, "r")[0]
    monkeypatch.setattr(scenes, "PRETRAINED", "none such")
    assert "give it: --model FILE" in fails("scenes", "--prompt", '"sand"', "--output", "none.png")
    # What is wrong with the prompt comes first.
    assert "column 1" in invoke("scenes", "--prompt", "sand", "--output", "none.png").stderr


@pytest.mark.slow
def test_shares_are_judged_where_there_is_a_judge():
    x, labels = jax.jit(captioned_scenes.labelled(32), static_argnums=1)(jax.random.key(3), 400)
    share = scenes.share_right('"sand" OR "a cube"', np.asarray(x))
    truth = captioned_scenes.fulfils('"sand" OR "a cube"', labels)
    assert share == pytest.approx(truth.mean(), abs=0.02)
    assert scenes.share_right('"sand"', np.zeros((2, 20, 20, 3))) is None
    assert scenes.share_right('"a dog"', np.asarray(x[:2])) is None
