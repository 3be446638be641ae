"""What happens around training and testing: checkpoints, metrics, pictures."""

from omiad.callbacks.checkpoint import LastCheckpoint as LastCheckpoint
from omiad.callbacks.curves import TrainingCurves as TrainingCurves
from omiad.callbacks.evaluation import Evaluation as Evaluation
from omiad.callbacks.progress import RunProgress as RunProgress
from omiad.callbacks.publication import Publication as Publication
