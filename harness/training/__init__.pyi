# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .bank_training import Watch as Watch, fit_bank as fit_bank
from .checkpoint import checkpoint_damage as checkpoint_damage
from .clusters import cluster_personas as cluster_personas
from .designs import DesignSpec as DesignSpec
from .estimate import (
    Estimate as Estimate,
    Load as Load,
    estimate_step as estimate_step,
    key_width as key_width,
)
from .fit_loop import FitLoop as FitLoop
from .fit_report import has_spike as has_spike
from .optimiser import learning_rate_factor as learning_rate_factor
from .orders import Elsewhere as Elsewhere, FitOrder as FitOrder, Joint as Joint, Shards as Shards
from .service import Control as Control, FitStopped as FitStopped, Fitter as Fitter, PlannedFit as PlannedFit
