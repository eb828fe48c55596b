"""docs/scaling_out.md: each of its programs runs as it stands, as a file of its own."""

import re
from pathlib import Path

import pytest

pytest.importorskip("sklearn", "1.6")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling_out.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if PAGE.is_file() else []
# What would take long: fewer images and epochs, and one of the nine networks.
SHORTER = {
    "load_digits(return_X_y=True)": "(each[:90] for each in load_digits(return_X_y=True))",
    "max_iter=20": "max_iter=1",
    "[0.0005, 0.001, 0.002]": "[0.001]",
    '"mini_vgg", None]': "]",
}


@pytest.mark.skipif(not PROGRAMS, reason="the page is not here")
@pytest.mark.parametrize("i", range(2))
def test_programs_run_as_they_stand(i, run_python, tmp_path):
    if "distributed" in PROGRAMS[i]:
        pytest.importorskip("distributed")
    text = PROGRAMS[i]
    for long, short in SHORTER.items():
        assert long in text
        text = text.replace(long, short)
    # The cluster's dashboard has one port, which others on this machine may have too.
    text = text.replace("n_workers=2", "n_workers=2, dashboard_address=None")
    path = tmp_path / "search.py"
    path.write_text(text)
    name = repr(str(path))
    run = f"import runpy, sys; sys.argv = [{name}]; runpy.run_path({name}, None, '__main__')"
    done = run_python(run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{'layers': 'conv16-3x3")


def test_there_are_no_others():
    assert not PROGRAMS or len(PROGRAMS) == 2
