"""Annotators look at a video and say what a condition would: edges, depth, a sketch, a hole. One file each, plain functions.

All of them follow VideoComposer's own extraction (damo-vilab/videocomposer @ 5c14d4f2), since its encoders know no other
look. Networks are loaded strictly from the original files; where a file is missing, a letter names it.
"""
