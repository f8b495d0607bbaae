<?php
// Waits for a command that sleeps for ?s=SECONDS, and that inherits all of the worker's descriptors.
exec('exec sleep ' . (int) ($_GET['s'] ?? 1));
echo "waited in ", getmypid(), "\n";
