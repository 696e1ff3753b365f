# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .escaping import (
    as_lines as as_lines,
    clean_json as clean_json,
    code as code,
    csv_cell as csv_cell,
    fenced as fenced,
    json_text as json_text,
    markdown as markdown,
    one_line as one_line,
    script_json as script_json,
    shell_word as shell_word,
    terminal as terminal,
    visible_json as visible_json,
    xml as xml,
)
from .places import without_places as without_places
