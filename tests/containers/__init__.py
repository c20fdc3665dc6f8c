"""The main job once more, in containers: `make test-containers`."""
