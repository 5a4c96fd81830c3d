"""The networks that can be trained, and what is known of each before it is built. Imports no torch.

A network is registered once, with the name of a class in a module. Settings, options of commands, the report and the ladder read
the registry; the module is imported, and torch with it, when the network is first built. A network of your own is registered the
same way and lives in a module of yours:

    fmanet.register_network("mine", "mypackage.net:MyNet", inputs=("both",))
    RunSettings(network=NetworkConfig(network="mine"))
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from flowkit.errors import ConfigError
from flowkit.listing import listed
from flowkit.named_code import is_name

Inputs = Literal["both", "rise", "fall", "cof", "mmcof"]
INPUTS: Final[tuple[Inputs, ...]] = typing.get_args(Inputs)
PHASES: Final[tuple[Inputs, ...]] = ("both", "rise", "fall")


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of a network before it is built.

    Attributes
    ----------
    name : str
        As settings and options name it.
    builder : str
        "module:attribute" of what is called with a `NetworkConfig` and gives the `nn.Module`.
    inputs : tuple of str
        The values of `NetworkConfig.inputs` that it takes.
    about : str
        What it is and where it comes from, for the report.
    origins : tuple of (str, str)
        Sources, and what rests on each, for the report.
    cite : str
        What whoever publishes its results cites besides flowkit and the data sets.
    ladder : tuple of (str, mapping)
        Rows of `fmanet ablate`: a title, and what the row sets of `NetworkConfig`; inputs are "both" unless it says others.
    closed_form : bool
        Fitted in one go, to tell one class from the others; it has no answer for each of several action units.
    """

    name: str
    builder: str
    inputs: tuple[Inputs, ...]
    about: str
    origins: tuple[tuple[str, str], ...]
    cite: str
    ladder: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    closed_form: bool = False


PAPER: Final = (
    "The method is that of arXiv 2510.07810 (FMANet), of which only the abstract and third-party summaries could be read, not the "
    "body. So this is an implementation of the method, not a reproduction of that paper's numbers."
)
PLAIN: Final = (
    "No network but a plain classifier, to measure networks against. The method of flowkit is that of arXiv 2510.07810 (FMANet), "
    "of which only the abstract and third-party summaries could be read."
)
SOURCE: Final = "the source of the network"
OWN: Final = "This network is not part of flowkit: the program that trained it brought it along."
ABOVE: Final = "the paper above"
_REGISTERED: Final[dict[str, Network]] = {
    network.name: network
    for network in (
        Network(
            "fmanet",
            "fmanet.model:FMANet",
            PHASES,
            PAPER,
            (
                (
                    "paper",
                    "analysis of both phases, modulation of the magnitude, adaptive fusion, focus on salient regions, all "
                    "learned in the network",
                ),
                (
                    "summary",
                    "two streams that take flow directly; normalised and combined magnitude; a threshold in the modulation",
                ),
                (
                    "ours",
                    "flow carried onto the canonical face, its scale, the power and the form of the gate, the fall turned round "
                    "and subtracted, the attention, the streams that answer alone, that of the action units, the map kept to "
                    "the end, training, every default value",
                ),
            ),
            ABOVE,
            (
                ("FMANet, rise only", {"inputs": "rise"}),
                ("FMANet, fall only", {"inputs": "fall"}),
                ("FMANet without fusion", {"fusion": False}),
                ("FMANet without action units", {"action_units": False}),
                ("FMANet with attention", {"attention": True}),
                ("FMANet with modulation", {"modulation": True}),
                ("FMANet", {}),
            ),
        ),
        Network(
            "lda",
            "fmanet.baselines:LinearDiscriminant",
            PHASES,
            PLAIN,
            (
                ("textbook", "linear discriminant analysis with a shrunken covariance, in closed form"),
                (
                    "ours",
                    "signed flow of 14 x 14 places as its input; its shrinkage by inner folds of the training subjects",
                ),
            ),
            ABOVE,
            (("LDA, rise only", {"inputs": "rise"}), ("LDA, both phases", {})),
            closed_form=True,
        ),
        Network(
            "svm",
            "fmanet.baselines:SupportVectors",
            PHASES,
            PLAIN,
            (
                (
                    "textbook",
                    "support vector machines with a Gaussian kernel, one class against the others (scikit-learn)",
                ),
                (
                    "ours",
                    "signed flow of 14 x 14 places as its input; its cost by inner folds of the training subjects",
                ),
            ),
            ABOVE,
            (("SVM, rise only", {"inputs": "rise"}), ("SVM, both phases", {})),
            closed_form=True,
        ),
        Network(
            "action-units",
            "fmanet.baselines:ActionUnitsAlone",
            PHASES,
            PLAIN,
            (("ours", "all of it: one hidden layer on the strengths of action units that extraction stored"),),
            ABOVE,
            (("Action units alone", {}),),
        ),
        Network(
            "shallow",
            "fmanet.baselines:ShallowStreams",
            ("rise", "fall"),
            PAPER,
            (
                (
                    "description",
                    "three streams of one convolution each on u, v and strain, after STSTNet (arXiv 1902.03634)",
                ),
                ("ours", "the scale of the input, ReLU, dropout, masking of invalid phases, training"),
            ),
            ABOVE,
            (("Shallow, rise only", {"inputs": "rise"}),),
        ),
        Network(
            "cnn",
            "fmanet.baselines:SmallCNN",
            INPUTS,
            PAPER,
            (("ours", "all of it: one stream of FMANet's layers on one representation, to judge the representation"),),
            ABOVE,
            (
                ("CNN, rise only", {"inputs": "rise"}),
                ("CNN, fall only", {"inputs": "fall"}),
                ("CNN, both phases", {}),
                ("CNN, COF", {"inputs": "cof"}),
                ("CNN, MM-COF", {"inputs": "mmcof"}),
            ),
        ),
    )
}


def all_networks() -> tuple[Network, ...]:
    """Return every network, in the order in which they were registered."""
    return tuple(_REGISTERED.values())


def network_names() -> tuple[str, ...]:
    """Return the names of all networks, in the same order."""
    return tuple(_REGISTERED)


def is_pinned(name: str) -> bool:
    """Return whether a name is "module:Class@HASH", as settings know a network that `--network` named."""
    return is_name(name) and "@" in name


def may_be_built(name: str) -> bool:
    """Return whether a network was registered in this process: the code of one that only a stored run names does not run."""
    return name in _REGISTERED


def registered(name: str, where: str = "network") -> Network:
    """Return what is known of a network; `where` is what a message begins with. Nothing is imported.

    Raises
    ------
    ConfigError
        No network of that name was registered.
    """
    if name not in _REGISTERED and is_pinned(name):
        return Network(name, name.partition("@")[0], INPUTS, OWN, (), SOURCE)
    if name not in _REGISTERED:
        raise ConfigError(
            f"{where}: network must be one of {listed(network_names())}; got {name!r}. Correct it, or register the network "
            "first (fmanet.register_network)."
        )
    return _REGISTERED[name]


def register_network(
    name: str,
    builder: str,
    *,
    inputs: Sequence[str] = ("both",),
    about: str = OWN,
    origins: Sequence[tuple[str, str]] = (),
    cite: str = SOURCE,
) -> None:
    """Make a network of your own known, so that settings can name it.

    Worker processes import `builder` by its name, so it lives in a module that they find, on a cluster too. Whoever reads a run of
    it (report, export, predictions) registers it first. A run folder knows its network by the name: give another version of the
    network another name.

    Parameters
    ----------
    name : str
        Letters, digits and ``_ . : -``.
    builder : str
        "module:attribute" of a class or function. It is called with a `NetworkConfig` and returns an `nn.Module` that takes flow,
        valid and region as `FMANet.forward` does, and action units if it has the attribute `sees_action_units = True`, and gives
        logits (B, config.classes). It raises ConfigError for settings that it cannot take. `train.stack` above 1 needs a module
        that `torch.func.vmap` can run.
    inputs : sequence of {"both", "rise", "fall", "cof", "mmcof"}
        The values of `NetworkConfig.inputs` that it takes.
    about : str
        What it is and where it comes from, for the report.
    origins : sequence of (str, str)
        Sources, and what rests on each, for the report.
    cite : str
        What to cite for it.

    Raises
    ------
    ConfigError
        A name or a builder of another form, inputs that do not exist, or another network of that name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*", name):
        raise ConfigError(f"network: name must be letters, digits and _ . : -; got {name!r}. Choose another.")
    if not is_name(builder) or "@" in builder or builder.startswith("__main__:"):
        raise ConfigError(
            f"network {name}: builder must be module:attribute, of a module that worker processes can import; got {builder!r}. "
            "Put the network into a module."
        )
    unknown = [one for one in inputs if one not in INPUTS]
    if unknown or not inputs:
        raise ConfigError(
            f"network {name}: inputs must be some of {', '.join(INPUTS)}; got {listed(unknown) or 'none'}. Correct them."
        )
    taken = cast(tuple[Inputs, ...], tuple(inputs))
    adopt(Network(name, builder, taken, about, tuple((what, text) for what, text in origins), cite))


def adopt(network: Network) -> None:
    """Register what another process has registered; once more the same changes nothing.

    Raises
    ------
    ConfigError
        There is another network of that name.
    """
    if _REGISTERED.setdefault(network.name, network) != network:
        raise ConfigError(
            f"network {network.name}: name must be that of one network; got another, built by {network.builder}, where "
            f"{_REGISTERED[network.name].builder} has it. Choose another name."
        )
