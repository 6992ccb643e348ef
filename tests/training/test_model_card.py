"""What the model card says of sampling with both models; the rest of the card is tested with the trainer."""

import shlex
import warnings

import pytest
from peft import LoraConfig
from transformers import HfArgumentParser

from hf_mgan.cli.generate import GenerateArguments
from hf_mgan.decoding import guided_sample

from ..conftest import bert_classifier
from ..decoding.conftest import calibration


def test_model_card_of_an_uncalibrated_discriminator(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The discriminator is not calibrated" in card
    assert "`discriminator_final_steps`" in card
    assert "guided_sample" not in card


@pytest.mark.parametrize("adapters", [False, True])
def test_model_card_lines_sample_with_both_models(make_trainer, generator, tokenizer, tmp_path, adapters, capsys):
    generator.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    bert_classifier().save_pretrained(tmp_path / "classifier")
    lora = [LoraConfig(r=2, target_modules=names) if adapters else None for names in (["c_attn"], ["query"])]
    trainer = make_trainer(
        model=str(tmp_path / "base"),
        processing_class=None,
        peft_config=lora[0],
        discriminator=str(tmp_path / "classifier"),
        discriminator_peft_config=lora[1],
    )
    trainer.train()
    trainer.discriminator.calibration = calibration(
        temperature=0.9,
        max_new_tokens=8,
        num_texts=500,
        auc=(0.7125, 0.65, 0.775),
        loss=0.61,
        uncalibrated_error=0.25,
        error=0.03,
        generation_kwargs={"top_p": 0.9},
    )
    trainer.save_model()
    trainer.create_model_card()
    section = (tmp_path / "out" / "README.md").read_text().split("### Sampling with both models")[1]
    section = section.split("## Training procedure")[0]
    assert 'at most 8 tokens, drawn at temperature 0.9 with `{"top_p": 0.9}`.' in section
    numbers = [line.split("|")[2].strip() for line in section.splitlines() if line.startswith("| ")]
    assert numbers[1:] == ["0.713 (0.650 to 0.775)", "0.610", "0.250, 0.030"]
    assert "on 500 held-out texts of each side" in section

    command = shlex.split(section.split("```bash")[1].split("```")[0])
    assert command[:2] == ["hf-mgan", "generate"]
    (script,) = HfArgumentParser(GenerateArguments).parse_args_into_dataclasses(command[2:])
    assert (script.model, script.temperature, script.max_new_tokens) == (str(tmp_path / "out"), 0.9, 8)
    assert script.generation_kwargs == {"top_p": 0.9}

    code = section.split("```python")[1].split("```")[0]
    scope = {}
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The discriminator is calibrated")
        exec(code.replace("Once upon a time", "the dog"), scope)
    expected = guided_sample(trainer.model.eval(), tokenizer, trainer.discriminator, ["the dog"], scope["config"])
    assert capsys.readouterr().out.splitlines()[-1] == str(expected.texts)
    assert scope["discriminator"].calibration == trainer.discriminator.calibration

    trainer.hub_model_id = "someone/out"
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "hf-mgan generate --model someone/out" in card
    assert 'folder = snapshot_download("someone/out")' in card
