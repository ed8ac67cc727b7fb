"""Things where a depth map has them, in the look of another picture: a ControlNet and a reference, which needs no file."""

import infuse

infuse.examples()
sd = infuse.load("tabletop")
where = infuse.ControlNet(model="depths", image="depth.png", end=0.8)
look = infuse.Reference(image="room.png", weight={0: 1, 1: 0.5})
sd("a large purple cone and a small white sphere", where, look, steps=20, seed=1).save("looked.png")
