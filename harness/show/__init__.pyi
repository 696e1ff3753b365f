# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .columns import side_by_side as side_by_side
from .described import (
    described as described,
    described_metric as described_metric,
    described_text as described_text,
)
from .drawn import (
    check_picture as check_picture,
    draw_diff as draw_diff,
    draw_joint as draw_joint,
    joint_figure as joint_figure,
)
from .exported import csv_text as csv_text, diff_table as diff_table, joint_table as joint_table
from .layout import as_html as as_html, table as table, table_lines as table_lines
from .printing import (
    base_rate_lines as base_rate_lines,
    interval as interval,
    metric_head as metric_head,
    number as number,
    p_value as p_value,
    run_cells as run_cells,
    run_line as run_line,
    score_line as score_line,
    shown as shown,
    yardstick_lines as yardstick_lines,
    yardsticks_json as yardsticks_json,
)
from .results import (
    Comparison as Comparison,
    Result as Result,
    Run as Run,
    frame as frame,
)
from .stored_text import diff_text as diff_text, plan_text as plan_text, run_text as run_text
