#!/bin/sh
# An authority of your own and a certificate each for scheduler, worker and client.
set -eu
umask 077

usage() {
    cat >&2 <<END
usage: make-certificates.sh begin FOLDER NAME...    an authority, and certificates by it
       make-certificates.sh renew FOLDER NAME...    new certificates, by the newest authority
       make-certificates.sh bundle FOLDER           a second authority, trusted beside the first
       make-certificates.sh retire FOLDER           the first authority is trusted no more

NAME: host names and addresses at which scheduler and workers are reached; localhost is among them.
DAYS (397) and AUTHORITY_DAYS (3650), from the environment: how long they hold.
END
    exit 2
}

fail() {
    echo "make-certificates.sh: $1" >&2
    exit 1
}

[ $# -ge 2 ] || usage
what=$1
folder=$2
shift 2
days=${DAYS:-397}
authority_days=${AUTHORITY_DAYS:-3650}
home=$folder/authority # stays where it was made: its key signs whom the cluster trusts

new_authority() { # NAME
    # The number tells two of them apart: certificates find their issuer by its name.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 \
        -days "$authority_days" -subj "/O=altrelu/CN=authority $(openssl rand -hex 8)" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout "$home/$1.key" -out "$home/$1.pem" 2>/dev/null
}

subject_names() { # NAME...
    list=DNS:localhost,IP:127.0.0.1,IP:::1
    for name in "$@"; do
        case $name in
        *[!A-Za-z0-9.:*_-]*) fail "'$name' is neither a host name nor an address" ;;
        *:*) list=$list,IP:$name ;;
        *[!0-9.]*) list=$list,DNS:$name ;;
        *) list=$list,IP:$name ;;
        esac
    done
    echo "$list"
}

new_certificate() { # ROLE USAGE NAMES
    request=$home/request.$$
    {
        echo "basicConstraints=critical,CA:FALSE"
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=$2"
        echo "subjectKeyIdentifier=hash"
        echo "authorityKeyIdentifier=keyid"
        echo "subjectAltName=$3"
    } >"$request.ext"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 \
        -subj "/O=altrelu/CN=$1" -keyout "$request.key" -out "$request.csr" 2>/dev/null
    openssl x509 -req -sha256 -days "$days" -in "$request.csr" -extfile "$request.ext" \
        -CA "$home/current.pem" -CAkey "$home/current.key" \
        -set_serial "0x$(openssl rand -hex 16)" -out "$request.pem" 2>/dev/null
    openssl verify -CAfile "$home/current.pem" "$request.pem" >/dev/null
    mv "$request.key" "$folder/$1.key"
    mv "$request.pem" "$folder/$1.pem"
    rm "$request.csr" "$request.ext"
}

new_certificates() { # NAME...
    names=$(subject_names "$@")
    # Scheduler and workers call each other and are called; a client only calls, and with its
    # certificate nobody can pass for one of them.
    new_certificate scheduler serverAuth,clientAuth "$names"
    new_certificate worker serverAuth,clientAuth "$names"
    new_certificate client clientAuth "DNS:client"
}

trust() { # FILE...
    cat "$@" >"$folder/ca.pem.new"
    chmod 644 "$folder/ca.pem.new"
    mv "$folder/ca.pem.new" "$folder/ca.pem"
}

case $what in
begin)
    [ ! -e "$home" ] || fail "$home: there is an authority already; 'renew' makes certificates"
    subject_names "$@" >/dev/null # refused before anything is made
    mkdir -p "$home"
    new_authority current
    new_certificates "$@"
    trust "$home/current.pem"
    ;;
renew)
    [ -e "$home/current.key" ] || fail "$folder: there is no authority; 'begin' makes one"
    new_certificates "$@"
    ;;
bundle)
    [ $# -eq 0 ] || usage
    [ -e "$home/current.key" ] || fail "$folder: there is no authority; 'begin' makes one"
    [ ! -e "$home/old.pem" ] || fail "$folder: two authorities are trusted; 'retire' ends the first"
    cp "$home/current.pem" "$home/old.pem"
    new_authority next
    mv "$home/next.key" "$home/current.key" # the old key signs nothing any more
    mv "$home/next.pem" "$home/current.pem"
    trust "$home/current.pem" "$home/old.pem"
    ;;
retire)
    [ $# -eq 0 ] || usage
    [ -e "$home/old.pem" ] || fail "$folder: one authority is trusted; 'bundle' adds a second"
    for role in scheduler worker client; do
        openssl verify -CAfile "$home/current.pem" "$folder/$role.pem" >/dev/null 2>&1 ||
            fail "$role.pem is of the authority that would go: 'renew' first"
    done
    rm "$home/old.pem"
    trust "$home/current.pem"
    ;;
*) usage ;;
esac
openssl storeutl -noout -text -certs "$folder/ca.pem" | grep -c "Issuer:" |
    sed "s|.*|$folder: $what done, authorities trusted: &|"
