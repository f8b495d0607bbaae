<?php
// Keeps a CPU busy for ?s=SECONDS.
$end = microtime(true) + (float) ($_GET['s'] ?? 1);
while (microtime(true) < $end) {
}
echo "spun in ", getmypid(), "\n";
