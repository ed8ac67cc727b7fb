"""PowerPaint: the condition, its generations' words, and outpainting's canvas."""
