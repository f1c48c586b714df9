"""What people look at: why two images are together or apart, pictures of a gallery, of a root group."""
