# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .calibration import run_calibration as run_calibration
from .effects import Share as Share, hedges_g as hedges_g, share_improved as share_improved, skewness as skewness
from .estimands import (
    Estimand as Estimand,
    differences as differences,
    mean_and_se as mean_and_se,
    score as score,
    t_interval as t_interval,
    weights as weights,
)
from .family import FEWEST_FOR_VERDICT as FEWEST_FOR_VERDICT, family_comparison as family_comparison
from .flips import holm as holm, sign_flip_p as sign_flip_p, sign_matrix as sign_matrix
from .pooled import (
    f1 as f1,
    precision as precision,
    pseudo_values as pseudo_values,
    recall as recall,
)
from .power import (
    equivalence as equivalence,
    mde as mde,
    mde_adjusted as mde_adjusted,
    personas_needed as personas_needed,
    power_at as power_at,
    power_of as power_of,
)
from .ranks import Rank as Rank, ranks as ranks
from .reference import reference_test as reference_test
from .rows import (
    ComparisonRow as ComparisonRow,
    ScoreRow as ScoreRow,
    row_json as row_json,
    row_values as row_values,
    score_row as score_row,
)
from .scores import PersonaScores as PersonaScores, aligned as aligned
from .seeds import (
    SeedVariance as SeedVariance,
    WithSeeds as WithSeeds,
    seed_variance as seed_variance,
    with_seeds as with_seeds,
)
from .shrinkage import sampling_variances as sampling_variances, shrunken_estimates as shrunken_estimates
from .subgroups import Subgroups as Subgroups, subgroup_comparison as subgroup_comparison
from .table import compare as compare
from .verdicts import FLAGS as FLAGS, quantity as quantity, verdict as verdict
