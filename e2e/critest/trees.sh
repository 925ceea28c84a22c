#!/bin/sh
# trees.sh DIR: the root trees that critest's images are made of, one folder per layer, from the node's own programs.
# The originals are busybox, nginx, httpd and a set-user-id program, on Alpine or Debian; the tests need no more of
# them than is here.
set -eu
out=$1
rm -rf "$out"

# program SOURCE LAYER [TARGET]: a program with the libraries that it is linked with.
program() {
  root=$out/$2
  target=$root${3:-$1}
  mkdir -p "${target%/*}"
  cp -L "$1" "$target"
  for library in $(ldd "$1" | grep -o '/[^ ]*'); do
    mkdir -p "$root${library%/*}"
    cp -L "$library" "$root$library"
  done
}

# base: busybox. critest also calls ipcs and pgrep, which Debian's busybox does not have.
for dir in bin dev etc home proc root run sys tmp usr/bin var/log; do mkdir -p "$out/base/$dir"; done
chmod 1777 "$out/base/tmp"
ln -s /run "$out/base/var/run"
cp -L /usr/bin/busybox "$out/base/usr/bin/busybox"
# Not hard links, as in the original: containerd shifts the owner of such a file once per name (user namespaces).
busybox --install -s "$out/base/bin"
program /usr/bin/ipcs base
rm -f "$out/base/bin/pgrep"
printf '#!/bin/sh\npidof "$@" | tr " " "\\n"\n' > "$out/base/bin/pgrep"
chmod 755 "$out/base/bin/pgrep"
cat > "$out/base/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
END
cat > "$out/base/etc/group" <<'END'
root:x:0:
www-data:x:33:
nogroup:x:65534:
END

# nginx, on port 80 of the pod; hostnet: the same on port 12003 of the node.
program /usr/sbin/nginx nginx
mkdir -p "$out/nginx/etc/nginx" "$out/nginx/usr/share/nginx/html" "$out/nginx/var/lib/nginx" "$out/nginx/var/log/nginx"
echo 'Welcome to nginx!' > "$out/nginx/usr/share/nginx/html/index.html"
conf() {
  mkdir -p "$out/$1/etc/nginx"
  cat > "$out/$1/etc/nginx/nginx.conf" <<END
user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  server { listen $2; root /usr/share/nginx/html; }
}
END
}
conf nginx 80
conf hostnet 12003

# httpd: busybox's.
mkdir -p "$out/httpd/www"
echo 'It works!' > "$out/httpd/www/index.html"

# nonewprivs: a set-user-id program that tells its effective user; bash does when it is called with -p.
program /bin/bash nonewprivs /usr/bin/effective-uid
chmod 4755 "$out/nonewprivs/usr/bin/effective-uid"

# group: user 1000 is in group 50000 by the image's own files.
mkdir -p "$out/group/etc"
{ cat "$out/base/etc/passwd"; echo 'default-user:x:1000:1000::/home:/bin/sh'; } > "$out/group/etc/passwd"
{ cat "$out/base/etc/group"; echo 'default-user:x:1000:'; echo 'group-defined-in-image:x:50000:default-user'; } > "$out/group/etc/group"

# pause: the node's.
mkdir -p "$out/pause"
tar -xOf /var/lib/node/images/pause.tar layer.tar | tar -xf - -C "$out/pause"

# One file each, so that images with the same programs are different images.
for mark in 1 2 3 latest digest test all tags; do
  mkdir -p "$out/mark-$mark"
  : > "$out/mark-$mark/test-image-$mark"
done

for layer in "$out"/*/; do
  layer=${layer%/}
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$layer" -cf "$layer.tar" .
done
