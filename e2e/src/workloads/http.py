# A web server that counts its visitors in memory and in /data/hits.
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

hits = 0
lock = threading.Lock()
log = append("/data/hits")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        global hits
        with lock:
            hits += 1
            os.write(log, f"{hits}\n".encode())
            body = f"{hits} {TOKEN}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
run(lambda i: None)
