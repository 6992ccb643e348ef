import pytest
import torch
from torch import nn

from hf_mgan.models import evaluation_mode


@pytest.fixture
def model():
    """Trains, but for its first part, as where someone has frozen it."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2), nn.Dropout(0.5)).train()
    model[0].eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


def test_every_module_is_in_evaluation_mode(model):
    with evaluation_mode(model):
        assert modes(model) == [False] * 4
        texts = torch.ones(8, 2)
        assert model(texts).equal(model(texts))


def test_each_module_has_its_own_mode_again(model):
    with evaluation_mode(model):
        pass
    assert modes(model) == [True, False, True, True]


def test_an_error_does_not_leave_evaluation_mode(model):
    with pytest.raises(KeyboardInterrupt), evaluation_mode(model):
        raise KeyboardInterrupt
    assert modes(model) == [True, False, True, True]
