"""The face of this module: users, login sessions, API keys, and who a caller is."""

from app.modules.auth.accounts import (
    UserChange,
    change_password,
    change_user,
    create_user,
    delete_user,
    ensure_admin,
    get_user,
    list_users,
)
from app.modules.auth.keys import (
    PREFIX,
    NewKey,
    create_key,
    get_key,
    list_keys,
    revoke_key,
)
from app.modules.auth.logins import (
    Login,
    Seen,
    authenticate,
    hash_token,
    list_sessions,
    login,
    logout,
    logout_everywhere,
    revoke_session,
    rotate,
)
from app.modules.auth.refusals import Place, Refusals
from app.modules.auth.remembered import RememberedKeys
from app.modules.auth.roles import LEVELS, Means, Principal, Role, Scope
from app.modules.auth.sessions import delete_ended
from app.modules.auth.throttle import forget_old, network
from app.modules.auth.validity import still_valid

__all__ = [
    "LEVELS",
    "PREFIX",
    "Login",
    "Means",
    "NewKey",
    "Place",
    "Principal",
    "Refusals",
    "RememberedKeys",
    "Role",
    "Scope",
    "Seen",
    "UserChange",
    "authenticate",
    "change_password",
    "change_user",
    "create_key",
    "create_user",
    "delete_ended",
    "delete_user",
    "ensure_admin",
    "forget_old",
    "get_key",
    "get_user",
    "hash_token",
    "list_keys",
    "list_sessions",
    "list_users",
    "login",
    "logout",
    "logout_everywhere",
    "network",
    "revoke_key",
    "revoke_session",
    "rotate",
    "still_valid",
]
