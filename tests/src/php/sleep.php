<?php
// Sleeps in nanosleep(2) for ?s=SECONDS, whatever signals come: php-fpm's SIGQUIT would cut a single sleep short.
$end = microtime(true) + (float) ($_GET['s'] ?? 1);
while (($left = $end - microtime(true)) > 0) {
    usleep((int) ceil($left * 1e6));
}
echo "slept in ", getmypid(), "\n";
