"""Container engines, Docker and Podman, through their command lines behind one Protocol."""
