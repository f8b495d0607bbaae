<?php
// A response header of ?bytes=N, more than nginx's fastcgi_buffer_size holds.
header('X-Big: ' . str_repeat('x', (int) ($_GET['bytes'] ?? 20000)));
echo "big\n";
