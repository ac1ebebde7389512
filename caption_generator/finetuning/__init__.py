"""How the shipped model was trained: on the images themselves, then by the reward of its own captions."""
