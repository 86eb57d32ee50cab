"""Every public name that is planned is there, or says that this version does not have it."""

import importlib

import pytest

from gradring import errors
from gradring.planned import PLANNED, refuse

NAMES = [(module, name) for module, names in PLANNED.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_planned_name_is_built_or_says_that_it_is_not(module, name):
    owner = importlib.import_module(module)
    if name in vars(owner) or name in owner.__all__:
        return  # the name has been built since
    assert not hasattr(owner, name)
    with pytest.raises(errors.NotBuilt, match=rf"^gr\..*{name} is planned; \w"):
        getattr(owner, name)


def test_the_error_is_of_both_kinds():
    for kind in (NotImplementedError, AttributeError, errors.GradringError):
        with pytest.raises(kind, match=r"^gr\.nn\.Conv2d is planned; this version has layers and kernels of vectors$"):
            refuse("gradring.nn", "Conv2d")


@pytest.mark.parametrize("module", ["gradring", "gradring.optim.schedule", *PLANNED])
def test_other_names_are_plain_attribute_errors(module):
    with pytest.raises(AttributeError, match=rf"module '{module}' has no attribute 'nothing'") as caught:
        importlib.import_module(module).nothing  # noqa: B018
    assert not isinstance(caught.value, errors.NotBuilt)
