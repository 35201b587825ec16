"""Method texts: what is accepted, its canonical form, and messages that help."""

import pytest

from vidplat.errors import UsageError
from vidplat.methods.language import Asked, asked, parse, text
from vidplat.methods.table import KINDS


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("hsa", "hsa"),
        ("HSA:50", "hsa"),  # the default says nothing
        ("hsa:25", "hsa:preset=25"),
        ("hsa:75a", "hsa:preset=75A"),
        ("hsa:work=0.40", "hsa:work=0.4"),
        ("sparse:k=3", "sparse"),
        ("sparse:2,dense_steps=1", "sparse:k=2,dense_steps=1"),
        (" sparse:k=5 + hsa:25 ", "hsa:preset=25+sparse:k=5"),  # in the table's order
        ("teacache:.1", "teacache:threshold=0.1"),
        ("early:0.5", "early"),
        ("euler + sparse:3 + early:0.40", "sparse+early:work=0.4+euler"),
        ("vgdfr:0.80,k=5", "vgdfr:theta=0.8,k=5"),
        ("vgdfr:quads=off,ratio=0.6+unipc", "vgdfr:ratio=0.6,quads=off+unipc"),
        ("vgdfr:form=paper,0.5", "vgdfr:theta=0.5,form=paper"),
        ("euler", "euler"),
        ("euler:5+hsa:25", "hsa:preset=25+euler:shift=5"),
    ],
)
def test_a_text_has_one_canonical_form(given: str, canonical: str) -> None:
    assert text(parse(given)) == canonical
    assert text(parse(canonical)) == canonical


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("hsaa:50", "did you mean hsa?"),
        ("hsa:60", "hsa preset must be one of 75A, 75B, 50, 25, not '60'"),
        ("hsa:prset=50", "did you mean preset? It has preset, work, kv"),
        ("sparse:k=0", "sparse k must be between 1 and 64, not '0'"),
        ("sparse:k=2.5", "sparse k must be a whole number between 1 and 64, not '2.5'"),
        ("sparse:k=2,k=3", "sparse is given k twice"),
        (
            "sparse:k=5,masks=searched",
            "sparse: k=5 and masks=searched exclude each other, since searched masks bring a k",
        ),
        ("teacache:nan", "teacache threshold must be a number between 0 and 10, not 'nan'"),
        ("teacache:-1", "not '-1'"),
        (
            "hsa:50+easycache",
            "hsa and easycache cannot be used together: both reuse old velocities",
        ),
        (
            "teacache+easycache",
            "teacache and easycache cannot be used together: both decide which passes run",
        ),
        ("hsa+unipc", "hsa needs euler"),
        ("early:0", "early work must be between 0.01 and 1, not '0'"),
        ("early+hsa", "early and hsa cannot be used together: both reuse old velocities"),
        ("early+lipar", "early and lipar cannot be used together: both reuse old velocities"),
        ("early+easycache", "both decide which passes run"),
        ("early+unipc", "early needs euler"),
        (
            "vgdfr:theta=0.8,ratio=0.6",
            "vgdfr: theta=0.8 and ratio=0.6 exclude each other: a ratio finds its own theta",
        ),
        ("vgdfr:theta=1.2", "vgdfr theta must be between 0 and 1, not '1.2'"),
        ("eco:K=1", "eco k must be between 2 and 1000, not '1'"),
        ("eco:selector=entropi", "eco selector must be one of entropy, uniform, motion, not"),
        ("vgdfr:form=papers", "vgdfr form must be one of pooled, paper, not 'papers'"),
        (
            "vgdfr+hsa",
            "vgdfr and hsa cannot be used together: what is kept of tokens has the places of "
            "all frames",
        ),
        ("vgdfr+sparse", "masks are laid out for all frames"),
        ("euler+unipc", "both decide the solver"),
        ("", "method '' is not known"),
        ("hsa:50+", "is not known"),
    ],
)
def test_a_wrong_text_is_refused_with_what_would_be_right(given: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(given)
    assert told in str(refused.value)


def test_searched_masks_go_with_the_k_that_nobody_chose() -> None:
    # 3 is what sparse has anyway, so a text cannot tell whether it was written
    assert (
        text(parse("sparse:k=3,masks=searched"))
        == text(parse("sparse:masks=searched"))
        == "sparse:masks=searched"
    )


def test_every_kind_s_bare_parameter_is_one_of_its_parameters() -> None:
    for kind in KINDS.values():
        assert kind.first in kind.parameters
        assert parse(kind.name)[0].text == kind.name


# --- everything that --method takes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", Asked("auto")),
        ("Auto", Asked("auto")),
        ("full", Asked("full")),
        (" steps ", Asked("steps")),
        ("Steps:24", Asked("steps", 24)),
        ("sparse:k=3+hsa:25", Asked("", chosen=parse("hsa:25+sparse:k=3"))),
    ],
)
def test_one_language_is_read_for_all_that_may_be_asked(given: str, meant: Asked) -> None:
    assert asked(given) == meant


@pytest.mark.parametrize("method", ["fast", "a\x00b"])
def test_an_unknown_method_is_refused_with_the_list_of_known_ones(method: str) -> None:
    with pytest.raises(UsageError, match=r"is not known; use auto, full, steps, or") as refused:
        asked(method)
    assert "\x00" not in str(refused.value)


@pytest.mark.parametrize("method", ["steps:0", "steps:", "steps:3,steps:4", "steps-12"])
def test_steps_that_are_no_number_are_refused_with_the_form_they_have(method: str) -> None:
    with pytest.raises(UsageError, match="is not known; use steps:N with N of 1 or more"):
        asked(method)


@pytest.mark.parametrize("method", ["keyframes", "Keyframes:5", "steps:12,keyframes:5"])
def test_a_method_that_is_gone_is_refused_with_what_took_its_place(method: str) -> None:
    with pytest.raises(UsageError, match=r"keyframes is gone: .* use steps:N, or eco:K"):
        asked(method)


@pytest.mark.parametrize(
    "method", ["magcache:0.1", "dbcache", "euler+magcache", "fbcache+sparse:3"]
)
def test_a_cache_that_became_a_rival_is_refused_with_those_that_stayed(method: str) -> None:
    with pytest.raises(UsageError, match=r"cache is gone: .* use easycache, early or hsa"):
        asked(method)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("lipar:preview=3", "lipar:preview is gone: lipar is for rows with an input video"),
        ("eco:5,Context=on", "eco:context is gone: telling the model of frames that are left out"),
        ("eco:selector=Random", "eco:selector=random is gone: it was a rival alone"),
        ("hsa:50+euler+vgdfr:late=merge", "vgdfr:late is gone: a run that is late takes fewer"),
    ],
)
def test_an_option_that_is_gone_is_refused_with_what_took_its_place(method: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked(method)
