"""A small world that infuse can draw, describe, paint and judge by itself: solids on a floor in front of a wall."""
