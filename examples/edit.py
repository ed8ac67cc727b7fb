"""Change one thing in a picture, and leave the rest as it is: an InstructPix2Pix is told in words."""

import infuse

infuse.examples()  # room.png: a red cube and a blue sphere
sd = infuse.load("tabletop-edit")  # of your own: timbrooks/instruct-pix2pix
room = infuse.Edit(image="room.png", image_guidance_scale=1.5)  # more keeps the picture more closely
for i, said in enumerate(("make the cube green", "remove the sphere", "turn the cube into a cone")):
    sd(said, room, steps=20, seed=1).save(f"edited-{i}.png")
