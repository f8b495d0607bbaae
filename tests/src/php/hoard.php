<?php
// Takes more memory than any limit allows.
ini_set('memory_limit', '-1');
$hoard = [];
while (true) {
    $hoard[] = str_repeat('x', 1 << 20);
}
