"""What a clip may hear beyond what pictures hear: VideoComposer's conditions, and a film to start from."""
