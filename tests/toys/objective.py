"A toy objective, added as CONTRIBUTING says: how bright the image is, to be told from the weights."

import torch
from jaxtyping import Float
from torch import Tensor

from inrformer.inr import grid
from inrformer.objective import OBJECTIVES, Objective
from inrformer.reader import Reader
from inrformer.splits import Split


class Brightness(Objective):
    "The mean of an INR's values over a grid, as one number."

    def attach(self, reader: Reader) -> Reader:
        "A linear map to one number."
        return reader.classify(("brightness",))

    def loss(self, reader: Reader, split: Split, drawn: None) -> dict[str, Tensor]:
        "`squared_error`, summed over the INRs."
        return dict(squared_error=(self.outputs(reader, split) - wanted(split)).square().sum())

    def outputs(self, reader: Reader, split: Split) -> Float[Tensor, "b"]:
        "The number that it says for each INR."
        return reader(split.inr).float()[:, 0]

    def score(self, outputs: Float[Tensor, "b"], split: Split) -> dict[str, float]:
        "`error`, the root of the mean square."
        return dict(error=(outputs - wanted(split)).square().mean().sqrt().item())


def wanted(split: Split) -> Float[Tensor, "b"]:
    "How bright each image is."
    with torch.no_grad():
        points = grid(*[4] * split.inr.spec.coordinates).to(split.inr.tensors[0])
        return split.inr(points).mean(dim=(1, 2))


OBJECTIVE = Brightness
OBJECTIVES["brightness"] = OBJECTIVE
