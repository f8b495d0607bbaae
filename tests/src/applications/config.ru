# Answers at once.
run ->(_) { [200, { "Content-Length" => "3" }, ["ok\n"]] }
