<?php
// Flushes ?bytes=N of the body, then stalls for ?s=SECONDS before the rest.
echo str_repeat('a', (int) ($_GET['bytes'] ?? 10000));
flush();
usleep((int) ((float) ($_GET['s'] ?? 1) * 1e6));
echo "the end\n";
