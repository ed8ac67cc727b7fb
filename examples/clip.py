"""A picture begins to move, and an arrow says where to."""

import infuse

infuse.examples()
sd = infuse.load("tabletop-video")
arrow = {"from": (0.3, 0.5), "to": (0.7, 0.6)}  # in parts of the picture
clip = sd(
    "a large red cube and a small blue sphere",
    infuse.SingleImage(image="room.png"),
    infuse.Motion(drawn=(arrow,)),
    frames=8,
    steps=16,
    seed=2,
)
clip.save("moving.gif")  # or .mp4, .webp, or a name without ending: a folder of PNG frames
