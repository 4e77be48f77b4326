"""The part of Go's templates that we render. That it is what Helm renders, `tests/lab/test_charts.py` shows."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isthmus.install.template import TemplateError, Templates


def render(source: str, data: Any = None, **partials: str) -> str:
    files = {f"_{name}.tpl": text for name, text in partials.items()}
    return Templates({"t": source, **files}).render("t", data)


@pytest.mark.parametrize(
    ("source", "data", "text"),
    [
        ("a {{ .b }} c", {"b": "x"}, "a x c"),
        ("a  {{- .b -}}  c", {"b": 1}, "a1c"),
        ("a\n{{- /* a remark */ -}}\nb", None, "ab"),
        ("{{ .a.b }}{{ $.a.b }}", {"a": {"b": True}}, "truetrue"),
        ("<{{ .missing }}>", {}, "<>"),
        ('{{ (index . "a-b").c }}', {"a-b": {"c": "x"}}, "x"),
        ("{{ if .a }}1{{ else if .b }}2{{ else }}3{{ end }}", {"b": [0]}, "2"),
        ("{{ if .a }}1{{ else if .b }}2{{ else }}3{{ end }}", {"a": "", "b": {}}, "3"),
        ("{{ with .a }}{{ . }}{{ $.b }}{{ else }}none{{ end }}", {"a": "x", "b": "y"}, "xy"),
        ("{{ with $x := .a }}{{ $x }}{{ else }}none{{ end }}", {"a": 0}, "none"),
        ("{{ range $key, $value := . }}{{ $key }}{{ $value }}{{ end }}", {"b": 2, "a": 1}, "a1b2"),
        ("{{ range . }}{{ . }},{{ else }}none{{ end }}", [1, 2], "1,2,"),
        ("{{ range . }}{{ . }},{{ else }}none{{ end }}", [], "none"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", None, "2"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ end }}{{ $x }}", None, "1"),
        ("{{ and .a .b.c }}", {"a": 0}, "0"),
        ("{{ or .a .b }}", {"a": "", "b": "x"}, "x"),
        ("{{ not (eq .a 1) }}{{ ne .a 1 }}", {"a": 1}, "falsefalse"),
        ('{{ printf "%s:%d" .a 2 | quote }}', {"a": 'x"y'}, '"x\\"y:2"'),
        ('{{ default "x" .a }}{{ .b | default "x" }}', {"a": "", "b": "y"}, "xy"),
        ("a:{{ toYaml . | nindent 2 }}", {"b": [1], "c": {}}, "a:\n  b:\n  - 1\n  c: {}"),
        ('{{ ("b: 1" | fromYaml).b }}', None, "1"),
        ('{{ $d := dict "a" 1 }}{{ $_ := set $d "b" 2 }}{{ $_ := unset $d "a" }}{{ toYaml $d }}', None, "b: 2"),
        ('{{ list "b" "a" "b" | uniq | sortAlpha | toYaml }}', None, "- a\n- b"),
        ('{{ if lookup "v1" "Secret" "a" "b" }}there{{ end }}', None, ""),
        ('{{ .has "x" }}', {"has": lambda what: what == "x"}, "true"),
    ],
)
def test_rendering(source: str, data: Any, text: str) -> None:
    """What is read is rendered as Go does."""
    assert render(source, data) == text


def test_definitions_are_shared_by_the_files_of_a_chart() -> None:
    """Inside, ``$`` is what the definition was given."""
    partial = '{{- define "greet" -}}\nhello {{ $.name }}\n{{- end -}}'

    assert render('{{ include "greet" (dict "name" .who) }}', {"who": "you"}, partial=partial) == "hello you"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{{ lower .a }}", "t:2: function 'lower' is not known here"),
        ("{{ template x }}", "t:1: function 'template' is not known here"),
        ("{{ if .a }}", "t:1: 'end' is missing"),
        ("{{ end }}", "t:1: 'end' ends nothing"),
        ("{{ if .a }}{{ else with .b }}{{ end }}", "t:1: 'else with .b' is not understood"),
        ("a\n\n{{ .a ", "t:3: an action that does not end"),
        ("{{ $x }}", "t:1: there is no variable $x"),
        ("{{ if .a }}{{ $x := 1 }}{{ end }}{{ $x }}", "t:1: there is no variable $x"),
        ("{{ (.a }}", "t:1: a parenthesis is not closed"),
        ("{{ .a ) }}", "t:1: ')' is not expected here"),
        ("{{ .a | }}", "t:1: a value is missing"),
        ("{{ ` }}", "t:1: '`' is not understood"),
        ("{{ define x }}{{ end }}", "t:1: a definition needs a name in quotes"),
    ],
)
def test_what_is_not_understood_is_refused_before_anything_is_rendered(source: str, message: str) -> None:
    """A chart that outgrows this is noticed by whoever changes it, with file and line."""
    with pytest.raises(TemplateError) as error:
        Templates({"t": source})

    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{{ . }}", "t:2: a dict cannot be printed; is toYaml missing?"),
        ("{{ .a.b }}", "t:1: 1 has no field 'b'"),
        ("{{ .none.b }}", "t:1: None has no field 'b'"),
        ("{{ range .a }}{{ end }}", "t:1: cannot range over 1"),
        ('{{ required "a name, please" .none }}', "t:1: required: a name, please"),
        ('{{ printf "%v" 1 }}', "t:1: printf: only %s and %d are known, not '%v'"),
        ('{{ dict "a" }}', "t:1: dict: zip() argument 2 is shorter than argument 1"),
        ('{{ genPrivateKey "rsa" }}', "t:1: only Helm has 'genPrivateKey'"),
        ('{{ include "x" . }}', "nothing defines a template 'x'"),
        (".{{ .a 1 }}", "t:1: 1 takes no operands"),
    ],
)
def test_what_cannot_be_rendered_says_where(source: str, message: str) -> None:
    """File and line, as with Helm."""
    with pytest.raises(TemplateError) as error:
        render(source, {"a": 1})

    assert str(error.value) == message


@given(st.text())
def test_any_text_survives_quoting(text: str) -> None:
    """Whatever a user writes ends up in the manifest as it was written, and as nothing else."""
    if any(0xD800 <= ord(character) < 0xE000 for character in text):
        return  # a lone surrogate is not a text that a file may hold

    rendered = render("a: {{ quote .t }}\nb: {{ b64enc .t }}\nc:\n  {{- toYaml (list .t) | nindent 2 }}", {"t": text})

    found = yaml.safe_load(rendered)
    assert (found["a"], base64.b64decode(found["b"] or "").decode(), found["c"]) == (text, text, [text])
