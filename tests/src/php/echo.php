<?php
// Reads the request's body, however large, and sends ?bytes=N or as much as came.
$body = file_get_contents('php://input');
$bytes = (int) ($_GET['bytes'] ?? strlen($body));
echo $bytes > strlen($body) ? str_repeat('e', $bytes) : substr($body, 0, $bytes);
