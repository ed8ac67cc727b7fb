"""What a prompt says beyond its words: weights, schedules, sums, networks, choices. Text in, plain data out."""
