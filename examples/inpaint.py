"""Fill a hole, and keep everything around it to the pixel."""

import infuse

infuse.examples()  # room.png and mask.png; what is white in the mask is painted
sd = infuse.load("tabletop")
sd("a large green cone", infuse.Inpaint(image="room.png", mask="mask.png"), steps=20, seed=5).save("filled.png")
