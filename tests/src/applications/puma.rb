threads 1, 4
persistent_timeout 2
